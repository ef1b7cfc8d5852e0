"""TagCLIP as a method, over a tiny decoder and an encoder with known embeddings; and from a file to a method."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ovseg_demo import image, vocabulary
from ovseg_demo.engine import Engine
from ovseg_demo.errors import CheckpointError, MethodError
from ovseg_demo.methods.registry import get, read_options
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes, MaskLogits
from ovseg_demo.methods.tagclip.method import TagCLIP
from ovseg_demo.methods.tagclip.options import TagCLIPOptions
from ovseg_demo.methods.tagclip.scores import ScoreRule, class_scores
from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, TrainingInfo
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights import catalogue
from tests.helpers import tagclip_models
from tests.helpers.building import built

WIDTH = 16
INFO = TrainingInfo(("cat", "TV monitor"), "photo", seen_penalty=True)
WORDS = "cat, dog|puppy, sky"


class TinyEncoder:
    """Random numbers that follow from the photo and from the words."""

    name = "tiny"
    slow_text_encoder = False

    def __init__(self):
        self.photos, self.words = 0, []

    def embed_texts(self, words):
        self.words += words
        return torch.stack([_random(word, WIDTH) for word in words])

    def embed_image(self, pixels, report):
        self.photos += 1
        report(1.0)
        key = str(pixels.sum())
        return WindowedPhoto(
            (32, 32), ((0, 0), (0, 16)), ImageEmbeddings(_random(key, 2, WIDTH, 4, 4), _random(key, 2, WIDTH))
        )


class GivenLogits:
    """In place of the decoder: constant mask logits for each word, and for the trusty map, that a test gives."""

    def __init__(self, *words: float, trusty: float | None = None):
        self._logits = words, trusty

    def eval(self):
        return self

    def requires_grad_(self, wanted):
        return self

    def __call__(self, encoded, texts):
        words, trusty = self._logits
        assert len(texts) == len(words)
        windows = len(encoded.images)
        maps = torch.tensor(words)[:, None, None].expand(windows, -1, 2, 2).contiguous()
        return MaskLogits(maps, None if trusty is None else torch.full((windows, 2, 2), trusty))


def _random(key: str, *shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(sum(key.encode()))), dim=-1)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(1)
    return Decoder(DecoderSizes(WIDTH, heads=2)).eval()


@pytest.fixture
def photo(random) -> image.Photo:
    return image.from_array(random.integers(0, 255, (32, 48, 3), np.uint8))


def segment(method, photo, words=WORDS, cache=None, **options):
    stages = Stages(cache or Cache(10**8), SerialWorker(), ignore_progress)
    return method.segment(photo, vocabulary.parse(words), TagCLIPOptions(**options), stages), stages


def test_labels_have_the_best_scores(decoder, photo):
    encoder = TinyEncoder()
    found, _ = segment(TagCLIP(encoder, decoder, INFO), photo)
    windows = encoder.embed_image(photo.pixels, lambda _: None)
    with torch.inference_mode():
        logits = decoder(windows.embeddings, encoder.embed_texts(["cat", "dog", "puppy", "sky"]))
    cat, dog, puppy, sky = logits.classes.unbind(1)
    merged = MaskLogits(torch.stack([cat, torch.maximum(dog, puppy), sky], 1), logits.trusty)
    expected = class_scores(windows, merged, ScoreRule((True, False, False), 0.1)).numpy()
    assert np.array_equal(found.labels, expected.argmax(0))
    np.testing.assert_allclose(found.scores, (expected.max(0) + 0.1) / 1.1, atol=1e-6)


def test_no_pixel_is_lost_to_the_seen_penalty(photo):
    """All words are seen and hardly there: the published scores are below 0."""
    found, _ = segment(
        TagCLIP(TinyEncoder(), GivenLogits(-6.0, -5.0, -7.0, trusty=-3.0), INFO), photo, "cat, dog, tv monitor"
    )
    assert (found.labels == 1).all()
    found, _ = segment(
        TagCLIP(TinyEncoder(), GivenLogits(-6.0, -5.0, trusty=-9.0), INFO), photo, "cat, tv monitor", recipe="code"
    )
    assert (found.labels == 1).all()
    assert (found.scores >= 0).all()


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, 1),  # cat is seen: (0.62 - 0.1) x 0.5, dog 0.57 x 0.5
        ({"recipe": "paper"}, 0),
        ({"trusty": False}, 1),
        ({"trusty": False, "recipe": "paper"}, 0),
        ({"seen": ("dog",)}, 0),
        ({"seen": ()}, 0),
        ({"seen": ("cat", "dog")}, 0),
    ],
)
def test_the_seen_classes_decide(photo, options, label):
    found, _ = segment(TagCLIP(TinyEncoder(), GivenLogits(0.5, 0.3, trusty=0.0), INFO), photo, "cat, dog", **options)
    assert (found.labels == label).all()


def test_the_trusty_map_turns_unseen_words_on(photo):
    method = TagCLIP(TinyEncoder(), GivenLogits(2.0, 1.0, trusty=2.0), INFO)
    assert (segment(method, photo, "cat, dog")[0].labels == 1).all()
    assert (segment(method, photo, "cat, dog", trusty=False)[0].labels == 0).all()


def test_a_class_is_seen_when_one_of_its_words_is(decoder):
    method = TagCLIP(TinyEncoder(), decoder, INFO)
    words = vocabulary.parse("CAT, lion|tvmonitor, cat 2, wildcat, dog")
    assert method.seen(words, None) == (True, True, False, False, False)
    assert method.seen(words, ("Dog", "LION")) == (False, True, False, False, True)
    assert method.seen(words, ()) == (False,) * 5


def test_notes_say_what_is_seen(decoder, photo):
    method = TagCLIP(TinyEncoder(), decoder, INFO)
    assert segment(method, photo)[0].notes == ("Counted as seen in training: cat.",)
    assert segment(method, photo, seen=())[0].notes == ("Counted as seen in training: none of the words.",)
    assert segment(method, photo, seen=("cat", "puppy", "sky"))[0].notes == (
        "Counted as seen in training: cat, dog, sky.",
    )


@pytest.mark.parametrize("seen", [(), ("cat",)])
@pytest.mark.parametrize(("words", "logits"), [("cat", (1.0,)), ("cat, dog", (-4.0, -5.0))])
def test_the_masks_alone_say_what_is_known(photo, seen, words, logits):
    """Neither the trusty map nor the penalty of seen classes does."""
    method = TagCLIP(TinyEncoder(), GivenLogits(*logits, trusty=4.0), INFO)
    result, _ = segment(method, photo, words, seen=seen)
    expected = torch.tensor(logits).sigmoid().numpy()
    np.testing.assert_allclose(result.known, expected[result.labels], atol=1e-5)
    np.testing.assert_allclose(result.presence, expected, atol=1e-5)


def test_random_weights_have_probabilities_of_being_known(decoder, photo):
    found, _ = segment(TagCLIP(TinyEncoder(), decoder, INFO), photo)
    assert found.known.shape == found.size
    assert ((found.known >= 0) & (found.known <= 1)).all()
    assert found.presence.shape == (3,)


def test_slow_stages_are_cached(decoder, photo):
    encoder, cache = TinyEncoder(), Cache(10**8)
    method = TagCLIP(encoder, decoder, INFO)
    segment(method, photo, cache=cache)
    _, again = segment(method, photo, cache=cache, seen=("sky",), trusty=False, recipe="paper")
    assert again.timings["Reading the photo"] == again.timings["Decoding"] == 0
    assert encoder.photos == 1
    _, more = segment(method, photo, WORDS + ", bus", cache=cache)
    assert encoder.photos == 1
    assert encoder.words == ["cat", "dog", "puppy", "sky", "bus"]
    assert more.timings["Decoding"] > 0


def test_evidence_has_masks_the_trusty_map_and_both_together(decoder, photo):
    found, _ = segment(TagCLIP(TinyEncoder(), decoder, INFO), photo)
    mask, trusty, weighted = found.evidence
    assert mask.classes == weighted.classes == (0, 1, 2)
    assert trusty.classes is None
    assert trusty.maps.shape[0] == 1
    assert trusty.title.startswith("Trusty map")
    whole = mask.maps[0] * (1 - trusty.maps[0])  # of a seen class; 0.1 less than the whole
    assert (weighted.maps[0] <= whole + 1e-3).all()
    plain, _ = segment(TagCLIP(TinyEncoder(), decoder, INFO), photo, trusty=False)
    assert [step.title for step in plain.evidence] == [mask.title, trusty.title]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A trained file, tiny, where the catalogue expects "tagclip-own"."""
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    path = catalogue.get("tagclip-own").path
    save_file(tagclip_models.published("tagclip"), path, {METADATA_KEY: INFO.to_json()})
    return path


@pytest.mark.parametrize(("size", "windows"), [((64, 64), 1), ((40, 60), 2), ((300, 30), 12), ((4, 900), 19)])
def test_a_file_becomes_a_method_that_reads_photos_of_any_shape(file, random, size, windows):
    method = built(get("tagclip-own"))
    found, _ = segment(method, image.from_array(random.integers(0, 255, (*size, 3), np.uint8)), "cat, dog|puppy, sky")
    assert found.size == size
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    assert (found.labels >= 0).all()
    read = method._encoder.embed_image(random.integers(0, 255, (*size, 3), np.uint8), lambda _: None)
    assert len(read.origins) == windows
    assert read.window_size == (tagclip_models.SIDE,) * 2


def test_a_file_without_training_info_is_refused(file):
    save_file(tagclip_models.published("tagclip"), file)
    with pytest.raises(CheckpointError, match="does not say how it was trained"):
        built(get("tagclip-own"))


def test_a_released_zegclip_has_no_trusty_map(tmp_path, monkeypatch, random):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    torch.save({"meta": {}, "state_dict": tagclip_models.published("zegclip")}, catalogue.get("zegclip-voc").path)
    method = built(get("zegclip-voc"))
    photo = image.from_array(random.integers(0, 255, (40, 50, 3), np.uint8))
    found, _ = segment(method, photo, "cat, sofa")
    assert [step.title for step in found.evidence] == ["Mask"]
    assert found.notes == ("Counted as seen in training: cat.",)


def test_other_methods_refuse_its_options(random):
    photo, engine = image.from_array(np.zeros((8, 8, 3), np.uint8)), Engine("cpu")
    with pytest.raises(MethodError, match="TagCLIPOptions are no options of mini-dense"):
        engine.segment(photo, vocabulary.parse("cat"), "mini-dense", TagCLIPOptions(trusty=False))
    for option, value in (("seen", ("cat",)), ("trusty", False), ("recipe", "paper")):
        with pytest.raises(MethodError, match=f"mini-dense has no option '{option}'; these have it: .*tagclip-own"):
            read_options("mini-dense", {option: value})
    with pytest.raises(MethodError, match="zegclip-voc has no option 'trusty'"):
        read_options("zegclip-voc", {"trusty": False})
    with pytest.raises(MethodError, match="Recipe must be one of code, paper; got 'soup'"):
        TagCLIPOptions(recipe="soup")
