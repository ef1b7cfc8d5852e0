"""SED as a method, with a tiny decoder and a source of random cost maps."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import Cancelled
from ovseg_demo.methods.background_words import background_words
from ovseg_demo.methods.sed.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.sed.method import SED
from ovseg_demo.methods.sed.optimised_decoder import DecoderOutput, OptimisedDecoder
from ovseg_demo.methods.sed.options import SEDOptions
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress

SIZES = DecoderSizes(prompts=3, skips=(5, 4, 3), widths=(16, 16, 16, 16), guides=(4, 4, 4), heads=2)
WIDTH = 6
SIDES = (3, 4)
WORDS = "cat, dog, sky, bus, tree, road, lamp"


@dataclass(frozen=True)
class TinyFeatures:
    """Features of a photo from the tiny source."""

    dense: Tensor
    skips: tuple[Tensor, ...]
    nbytes: int = 100


class TinySource:
    """Random numbers that follow from the photo and from the words."""

    name = "tiny"
    slow_text_encoder = False

    def __init__(self):
        self.photos, self.words = [], []

    def embed_texts(self, words):
        self.words += words
        return torch.stack([_random(word, SIZES.prompts, WIDTH) for word in words])

    def class_embeddings(self, embeddings, class_indices):
        return torch.stack([embeddings[class_indices == i].mean(0) for i in range(int(class_indices.max()) + 1)])

    def embed_image(self, pixels, keep_aspect):
        self.photos.append(keep_aspect)
        key = f"{pixels.sum()} {keep_aspect}"
        skips = [_random(key, c, *(side * 2**i for side in SIDES)) for i, c in enumerate(SIZES.skips, 1)]
        return TinyFeatures(_random(key, WIDTH, *SIDES), tuple(skips))

    def cost_map(self, photo, texts):
        return torch.einsum("chw,tpc->tphw", F.normalize(photo.dense, dim=0), F.normalize(texts, dim=-1)).contiguous()

    def skips(self, photo):
        return photo.skips


class LettersOfTheWord:
    """A dense model to which a word fits everywhere, as well as it has letters."""

    name, dense_calibration = "letters", UNCALIBRATED

    def embed_texts(self, words):
        return torch.tensor([[float(len(word))] for word in words])

    def embed_image(self, pixels):
        return torch.zeros(3, 2)

    def dense_logits(self, features, texts):
        return texts[:, :, None].expand(-1, *features.shape)


class GivenLogits:
    """In place of the decoder: logits that a test gives."""

    def __init__(self, *logits: Tensor, kept_classes: tuple[list[int], ...]):
        self._output = DecoderOutput(
            logits, tuple(torch.tensor(indices, dtype=torch.int64) for indices in kept_classes)
        )

    def __call__(self, cost, skips, rejection, report):
        return self._output


def _random(key: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(key.encode())))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(1)
    return Decoder(SIZES).eval()


@pytest.fixture
def source() -> TinySource:
    return TinySource()


@pytest.fixture
def method(decoder, source) -> SED:
    return SED(source, OptimisedDecoder(decoder))


@pytest.fixture
def photo(random) -> image.Photo:
    return image.from_array(random.integers(0, 255, (33, 50, 3), np.uint8))


def segment(method, photo, words=WORDS, cache=None, **options):
    stages = Stages(cache or Cache(10**7), SerialWorker(), ignore_progress)
    return method.segment(photo, vocabulary.parse(words), SEDOptions(**options), stages), stages


def probabilities(decoder, source, photo, words=WORDS) -> Tensor:
    """Of every class, float32 (T, h, w), by the plain decoder."""
    texts = torch.stack([_random(word, SIZES.prompts, WIDTH) for word in words.split(", ")])
    read = source.embed_image(photo.pixels, False)
    with torch.inference_mode():
        return decoder(source.cost_map(read, texts)[None], [each[None] for each in read.skips])[-1][0].sigmoid()


def test_labels_are_those_of_the_published_postprocessing(method, decoder, source, photo):
    """Sigmoid, then bilinear to the photo's size (Detectron2's sem_seg_postprocess), then the best class."""
    found, _ = segment(method, photo)
    whole = probabilities(decoder, source, photo)[None]
    whole = F.interpolate(whole, photo.pixels.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    best = np.sort(whole, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    assert clear.mean() > 0.99
    assert len(np.unique(found.labels)) > 2
    assert np.array_equal(found.labels[clear], whole.argmax(0)[clear])
    assert np.allclose(found.scores, best[-1], atol=1e-5)
    assert found.names == vocabulary.parse(WORDS).names
    assert found.notes == ()


def test_rejected_classes_are_nowhere(method, photo):
    found, _ = segment(method, photo, rejection=(2, 1, 1))
    kept = [len(each.classes) for each in found.evidence[1:]]
    assert kept[0] == 7
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 7, "the test shows nothing where all stay"
    assert found.notes == (f"Early rejection: 7 words → {kept[1]} → {kept[2]} → {kept[3]}.",)
    left = found.evidence[-1].classes
    assert set(np.unique(found.labels)) <= set(left)
    assert set(np.unique(found.top_classes)) <= set(left)
    assert found.names == vocabulary.parse(WORDS).names


def test_a_rejection_that_keeps_all_changes_nothing(method, photo):
    full, _ = segment(method, photo)
    same, _ = segment(method, photo, rejection=(7, 7, 7))
    assert np.array_equal(full.labels, same.labels)
    assert np.allclose(full.top_scores, same.top_scores, atol=1e-5)
    assert same.notes == ("Early rejection: 7 words → 7 → 7 → 7.",)


def test_every_step_is_shown(method, decoder, source, photo):
    found, _ = segment(method, photo)
    steps = found.evidence
    assert [each.title for each in steps] == [
        "Cost map",
        "Before stage 1",
        "After stage 1",
        "After stage 2",
        "After stage 3",
    ]
    assert [each.maps.shape for each in steps] == [(7, 3 * s, 4 * s) for s in (1, 1, 2, 4, 8)]
    assert all(each.maps.dtype == np.float16 and each.classes == tuple(range(7)) for each in steps)
    assert [each.limits for each in steps] == [None, *[(0.0, 1.0)] * 4]
    assert np.allclose(steps[-1].maps, probabilities(decoder, source, photo), atol=1e-3)
    texts = torch.stack([_random(word, SIZES.prompts, WIDTH) for word in WORDS.split(", ")])
    cost = source.cost_map(source.embed_image(photo.pixels, False), texts)
    assert np.allclose(steps[0].maps, cost.mean(1), atol=1e-3)


def test_large_maps_are_averaged(source, photo):
    """847 classes at full size would be hundreds of megabytes in every result."""
    logits = torch.full((2, 192, 96), -3.0)
    logits[0, :3, :3] = 3
    result, _ = segment(SED(source, GivenLogits(*[logits] * 4, kept_classes=([0, 1],) * 4)), photo, "cat, dog")
    last = result.evidence[-1].maps
    assert last.shape == (2, 64, 32)
    assert np.allclose(last[:, :2, 0], [[0.9526, 0.0474], [0.0474, 0.0474]], atol=1e-3)


def test_one_word_is_known_as_far_as_its_own_probability_says(source, photo):
    """There is no dense model that could compare it with background words."""
    logits = torch.tensor([[[2.0, -2.0]]])
    result, _ = segment(SED(source, GivenLogits(*[logits] * 4, kept_classes=([0],) * 4)), photo, "cat")
    assert (result.labels == 0).all()
    np.testing.assert_allclose(result.known[:, [0, -1]], [[0.8808, 0.1192]] * 33, atol=1e-4)
    np.testing.assert_allclose(result.presence, [0.8808], atol=1e-4)
    assert source.words == ["cat"]


@pytest.mark.parametrize("rejection", [None, (2, 1, 1)])
def test_random_weights_have_probabilities_of_being_known(method, photo, rejection):
    """Of a word that was rejected it is known that it is absent."""
    found, _ = segment(method, photo, rejection=rejection)
    left = found.evidence[-1].classes
    assert found.known.shape == found.size
    assert ((found.known >= 0) & (found.known <= 1)).all()
    assert found.presence.shape == (7,)
    assert np.flatnonzero(found.presence).tolist() == list(left)


def test_a_dense_model_tells_what_is_known_of_classes_that_stay(source, photo):
    """Kept classes are compared by their place in the vocabulary, not by that among the kept ones."""
    four, two = torch.zeros(4, 1, 1), torch.tensor([[[1.0]], [[2.0]]])
    given = GivenLogits(four, two, two, two, kept_classes=([0, 1, 2, 3], *[[1, 3]] * 3))
    method = SED(source, given, dense_model=LettersOfTheWord())
    result, stages = segment(method, photo, "cat, dog, bicycle, hippopotamus", rejection=(1, 1, 1))
    assert (result.labels == 3).all()
    words = background_words(["cat", "dog", "bicycle", "hippopotamus"])
    odds = 12 - max(map(len, words))
    np.testing.assert_allclose(result.known, 1 / (1 + np.exp(-odds)), atol=1e-4)
    assert result.presence.shape == (4,)
    assert result.presence.argmax() == 3
    assert "Comparing with background words" in stages.timings


def test_classes_that_stay_keep_their_names(source, photo):
    all_four, two = torch.zeros(4, 1, 1), torch.tensor([[[1.0]], [[2.0]]])
    method = SED(source, GivenLogits(all_four, two, two, two, kept_classes=([0, 1, 2, 3], [1, 3], [1, 3], [1, 3])))
    result, _ = segment(method, photo, "cat, dog, sky, bus", rejection=(1, 1, 1))
    assert (result.labels == 3).all()
    assert [entry.name for entry in result.summary()] == ["bus"]
    assert result.top_classes[:, 0, 0].tolist() == [3, 1]


def test_synonyms_are_one_class(method, photo):
    found, _ = segment(method, photo, "cat|dog, sky, bus|tree")
    assert found.names == ("cat", "sky", "bus")
    assert set(np.unique(found.labels)) <= {0, 1, 2}


def test_slow_stages_are_cached(method, source, photo):
    cache = Cache(10**7)
    segment(method, photo, "cat, dog", cache)
    _, stages = segment(method, photo, "cat, dog", cache)
    assert {name for name, seconds in stages.timings.items() if seconds} == {"Naming pixels"}
    _, stages = segment(method, photo, "cat, sky", cache)
    assert source.words == ["cat", "dog", "sky"]
    assert stages.timings["Decoding"] > 0
    _, stages = segment(method, photo, "cat, sky", cache, rejection=(1, 1, 1))
    assert stages.timings["Decoding"] > 0
    assert source.photos == [False]
    segment(method, photo, "cat, sky", cache, keep_aspect=True)
    assert source.photos == [False, True]


def test_decoding_tells_its_progress_and_can_be_cancelled(method, photo):
    def listener(progress):
        events.append((progress.stage, progress.fraction))
        if events[-1] == ("Decoding", 0.5):
            raise Cancelled

    events, cache = [], Cache(10**7)
    with pytest.raises(Cancelled):
        method.segment(photo, vocabulary.parse(WORDS), SEDOptions(), Stages(cache, SerialWorker(), listener))
    assert [fraction for stage, fraction in events if stage == "Decoding"] == [0, 0.25, 0.5]
    _, stages = segment(method, photo, cache=cache)
    assert stages.timings["Decoding"] > 0, "kept although it was not done"


def test_the_cache_counts_the_bytes_of_a_decoded_photo(method, photo):
    cache = Cache(10**7)
    result, _ = segment(method, photo, cache=cache)
    words, probabilities = 7 * SIZES.prompts * WIDTH * 4, 7 * 24 * 32 * 4
    assert cache.nbytes == 100 + words + probabilities + sum(each.maps.nbytes for each in result.evidence)
