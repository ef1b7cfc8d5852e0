"""From a photo and words to labels, as SED's reference does it on equal weights."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.sed import cost_maps
from ovseg_demo.methods.sed.checkpoint import split_checkpoint
from ovseg_demo.methods.sed.cost_maps import ClipCostMaps
from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.method import SED
from ovseg_demo.methods.sed.optimised_decoder import OptimisedDecoder
from ovseg_demo.methods.sed.options import SEDOptions
from ovseg_demo.models.clip.convnext import HierarchicalClip, HierarchicalFeatures
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import drawn_image, fixture, sampled, weights
from tests.helpers.sed_models import ARCHITECTURE, SIDE, SIZES, register

REFERENCE = fixture("sed_parity.json")
CASES = pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["rejection"]))
CLASSES = [name.split(", ") for name in REFERENCE["classes"]]
"""The words of each class."""


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost_maps, "SIDE", SIDE)
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        register(tmp_path_factory.mktemp("architecture"))
        yield


@pytest.fixture(scope="module")
def released(small):
    return split_checkpoint({"model": weights(REFERENCE["tensors"])})


@pytest.fixture(scope="module")
def costs(released) -> ClipCostMaps:
    return ClipCostMaps(HierarchicalClip(ARCHITECTURE, released.clip, "tiny", source="tiny", precision="float32"))


@pytest.fixture(scope="module")
def inference(released) -> OptimisedDecoder:
    decoder = Decoder(SIZES)
    load_strict(decoder, released.decoder, "tiny")
    return OptimisedDecoder(decoder.eval())


@pytest.fixture(scope="module")
def photo(costs) -> HierarchicalFeatures:
    return costs.embed_image(drawn_image(), keep_aspect=False)


@pytest.fixture(scope="module")
def cost(costs, photo) -> Tensor:
    class_indices = torch.tensor([index for index, words in enumerate(CLASSES) for _ in words])
    embeddings = costs.embed_texts([word for words in CLASSES for word in words])
    return costs.cost_map(photo, costs.class_embeddings(embeddings, class_indices))


def close(found: Tensor, wanted: list[float]) -> None:
    torch.testing.assert_close(sampled(found), torch.tensor(wanted), atol=1e-5, rtol=1e-5)


def test_cost_map_and_image_features(costs, photo, cost):
    assert cost.shape == (len(CLASSES), 80, SIDE // 32, SIDE // 32)
    close(cost, REFERENCE["cost"])
    for found, wanted in zip(costs.skips(photo), REFERENCE["skips"], strict=True):
        close(found, wanted)


@CASES
def test_logits_and_the_classes_kept(inference, costs, photo, cost, case):
    decoded = inference(cost, costs.skips(photo), case["rejection"])
    everything = list(range(len(CLASSES)))
    assert [kept.tolist() for kept in decoded.kept_classes] == [everything, *(case["kept"] or [everything] * 3)]
    for found, wanted in zip(decoded.logits, case["logits"], strict=True):
        close(found, wanted)


@pytest.fixture(scope="module")
def segment(costs, inference):
    """Segments the photo, with the early rejection given."""
    cache = Cache(2**26)
    words = vocabulary.parse(", ".join("|".join(words) for words in CLASSES))

    def segmented(rejection: tuple[int, ...] | None) -> Segmentation:
        stages = Stages(cache, SerialWorker(), ignore_progress)
        return SED(costs, inference).segment(
            image.from_array(drawn_image()), words, SEDOptions(rejection=rejection), stages
        )

    return segmented


@CASES
def test_labels_and_scores(segment, case):
    """Labels are those of the published postprocess, and scores its probabilities."""
    result = segment(case["rejection"] and tuple(case["rejection"]))
    probabilities = torch.tensor(case["millionths"]) / 1e6
    best, second = probabilities.topk(2).values.unbind(1)
    sure = best - second > 1e-4
    assert sure.float().mean() > 0.8
    labels = at_pixels(result.labels[None])[:, 0]
    classes, scores = at_pixels(result.top_classes), at_pixels(result.top_scores)
    assert torch.equal(labels[sure], probabilities.argmax(1)[sure].int())
    torch.testing.assert_close(scores, probabilities.gather(1, classes.long()), atol=1e-5, rtol=0)


def at_pixels(maps: np.ndarray) -> Tensor:
    """Maps (K, H, W) at the pixels that are known of the reference: (pixels, K)."""
    return torch.from_numpy(maps[:, REFERENCE["rows"]][:, :, REFERENCE["columns"]]).flatten(1).mT


def test_a_rejection_that_keeps_all_is_the_full_path(segment):
    full, kept = segment(None), segment((len(CLASSES),) * 3)
    assert (full.labels == kept.labels).all()
    assert (full.top_scores == kept.top_scores).all()
