"""From pixels and words to probabilities, as NACLIP's reference does it on equal weights."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods import windows
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.dense import pamr
from ovseg_demo.methods.dense.model import DenseClipEncoder, DenseFeatures
from ovseg_demo.methods.dense.ranking import refined_ranking
from ovseg_demo.methods.dense.scores import PixelScores
from ovseg_demo.methods.windows import Axis, WindowLayout
from tests.helpers import dense_models
from tests.helpers.dense_models import PATCH, SIDE
from tests.helpers.oracle import drawn, drawn_image, fixture, sampled

REFERENCE = fixture("naclip.json")
CLASSES = REFERENCE["classes"]
RESIZED, ORIGINAL = (52, 75), (60, 87)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Iterator[DenseClipEncoder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        dense_models.register(tmp_path_factory.mktemp("architecture"))
        yield DenseClipEncoder(
            dense_models.ARCHITECTURE, dense_models.state(), "tiny", source="tiny", precision="float32"
        )


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", SIDE)


def features(encoder: DenseClipEncoder, pixels: Tensor, stride: int | None, strategy="naclip") -> DenseFeatures:
    """Of one photo (3, H, W) that is normalised and resized already."""
    rows, columns = (Axis.cut(length, stride, PATCH) for length in pixels.shape[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "preprocess", lambda *_: pixels)
        read = encoder.read_windows(drawn_image(), WindowLayout(rows, columns), lambda _: None)
    return encoder.features(read, strategy)


@pytest.mark.parametrize("case", REFERENCE["features"], ids=lambda case: f"{case['strategy']}-{case['size']}")
def test_patches_of_every_strategy(encoder, case):
    """The trained grid, others that are not square, one with a cut patch, one with as many patches as trained."""
    pixels = drawn("pixels", (2, 3, *case["size"]))
    found = torch.cat([features(encoder, photo, None, case["strategy"]).patches for photo in pixels])
    torch.testing.assert_close(sampled(found), torch.tensor(case["patches"]), atol=1e-5, rtol=0)


def test_texts(encoder):
    found = encoder.embed_texts([word for words in CLASSES for word in words])
    torch.testing.assert_close(sampled(found), torch.tensor(REFERENCE["texts"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "guide"),
    [
        ("noise", drawn("guide", (1, 3, 37, 52))[0]),
        ("photo", torch.from_numpy(drawn_image()).permute(2, 0, 1) / 64 - 2),
    ],
    ids=["noise", "photo"],
)
def test_pamr(name, guide):
    scores = drawn("scores", (1, *guide.shape))[0]
    found = pamr.refine(scores, pamr.affinities(guide))
    torch.testing.assert_close(sampled(found), torch.tensor(REFERENCE["pamr"][name]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", REFERENCE["chain"], ids=lambda case: f"{case['crop']}-{case['pamr']}")
def test_probabilities_of_a_photo(encoder, case):
    """In windows or whole, with PAMR or without; one class has two words."""
    pixels = F.avg_pool2d(drawn("resized", (1, 3, *RESIZED)), 9, 1, 4, count_include_pad=False)[0] * 3
    embeddings = encoder.embed_texts([word for words in CLASSES for word in words])
    indices = torch.tensor([index for index, words in enumerate(CLASSES) for _ in words])
    read = features(encoder, pixels, 20 if case["crop"] else None)
    scores = PixelScores(read, ClassTextEmbeddings(embeddings, indices), ORIGINAL)
    if case["pamr"]:
        guide = F.interpolate(pixels[None], ORIGINAL, mode="bilinear", align_corners=False)[0]
        ranking = refined_ranking(scores, guide, lambda _: None)
        found = torch.zeros(len(CLASSES), *ORIGINAL).scatter_(0, ranking.classes, ranking.scores / ranking.total)
    else:
        found = scores.at_rows(slice(None))
        found = found / found.sum(0)
    torch.testing.assert_close(found[:, 2::17, 3::19], torch.tensor(case["probabilities"]), atol=1e-5, rtol=0)
