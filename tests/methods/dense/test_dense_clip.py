"""Dense CLIP as a method, on a CLIP of a few layers: options, caches, photos of every shape."""

import numpy as np
import pytest
import torch

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import MethodError
from ovseg_demo.methods import registry, windows
from ovseg_demo.methods.background_words import background_words
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.dense import model
from ovseg_demo.methods.dense.method import DenseClip
from ovseg_demo.methods.dense.model import DenseClipEncoder, load_dense_clip
from ovseg_demo.methods.dense.options import DenseClipOptions
from ovseg_demo.methods.dense.scores import PixelScores
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights import catalogue, loading
from tests.helpers import dense_models

WORDS = "cat, dog|puppy, sky"
READING, RELATING, REFINING = "Reading the photo", "Relating patches", "Refining outlines"


class Halves:
    """One mask, the left half of the photo."""

    name = "halves"

    def propose(self, photo, report):
        masks = np.zeros((1, *photo.shape[:2]), bool)
        masks[:, :, : photo.shape[1] // 2] = True
        return MaskProposals.from_masks(masks, np.ones(1))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> DenseClipEncoder:
    dense_models.register(tmp_path_factory.mktemp("architecture"))
    return DenseClipEncoder(dense_models.ARCHITECTURE, dense_models.state(), "tiny", source="tiny", precision="float32")


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", 2 * dense_models.SIDE)


@pytest.fixture
def photo(random) -> image.Photo:
    return image.from_array(random.integers(0, 255, (24, 36, 3), np.uint8))


@pytest.fixture
def cache() -> Cache:
    return Cache(10**8)


def segment(encoder, photo, words=WORDS, cache=None, **options):
    stages = Stages(cache or Cache(10**8), SerialWorker(), ignore_progress)
    settings = {"short_side": 112, "stride": 56, "pamr": False, **options}
    method = DenseClip(encoder, Halves())
    return method.segment(photo, vocabulary.parse(words), DenseClipOptions(**settings), stages), stages.timings


@pytest.mark.parametrize("pamr", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (10, 300), (300, 10), (33, 31)])
def test_photos_of_every_shape_have_a_result(encoder, random, size, pamr):
    photo = image.from_array(random.integers(0, 255, (*size, 3), np.uint8))
    found, _ = segment(encoder, photo, pamr=pamr)
    assert found.size == size
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    assert np.allclose(found.top_scores.sum(0), 1, atol=1e-4)
    assert np.array_equal(found.labels, found.top_classes[0])


def test_every_strategy_names_pixels_in_a_way_of_its_own(encoder, photo, cache):
    found = {}
    for strategy in ("naclip", "sclip", "kk", "maskclip", "vanilla"):
        result, timings = segment(encoder, photo, cache=cache, strategy=strategy)
        assert (timings[READING] > 0) == (strategy == "naclip")  # all share the blocks before the last
        assert timings[RELATING] > 0
        found[strategy] = result.scores
    assert len({scores.tobytes() for scores in found.values()}) == 5


def test_words_and_refinement_leave_the_photo_read(encoder, photo, cache):
    segment(encoder, photo, cache=cache)
    _, timings = segment(encoder, photo, WORDS + ", sea", cache=cache)
    assert timings[READING] == timings[RELATING] == 0
    refined, timings = segment(encoder, photo, cache=cache, pamr=True)
    assert timings[READING] == timings[RELATING] == 0 < timings[REFINING]
    again, timings = segment(encoder, photo, cache=cache, pamr=True)
    assert timings[REFINING] == 0
    assert np.array_equal(again.labels, refined.labels)
    _, timings = segment(encoder, photo, WORDS + ", sea", cache=cache, pamr=True)
    assert timings[REFINING] > 0


@pytest.mark.parametrize("changed", [{"short_side": 128}, {"stride": 64}, {"stride": None}])
def test_another_size_or_stride_reads_the_photo_anew(encoder, photo, cache, changed):
    plain, _ = segment(encoder, photo, cache=cache)
    other, timings = segment(encoder, photo, cache=cache, **changed)
    assert timings[READING] > 0
    assert not np.array_equal(other.scores, plain.scores)


@pytest.mark.parametrize("pamr", [False, True])
def test_masks_make_their_pixels_agree_and_leave_the_others(encoder, photo, cache, pamr):
    plain, _ = segment(encoder, photo, cache=cache, pamr=pamr)
    voted, timings = segment(encoder, photo, cache=cache, pamr=pamr, masks=True)
    assert len(np.unique(voted.scores[:, :18])) == 1
    assert len(np.unique(plain.scores[:, :18])) > 1
    assert np.array_equal(voted.scores[:, 18:], plain.scores[:, 18:])
    assert timings["Finding masks"] > 0


@pytest.mark.parametrize("options", [{}, {"pamr": True}, {"masks": True}])
@pytest.mark.parametrize("words", [WORDS, "cat"])
def test_every_pixel_has_a_probability_of_being_known(encoder, photo, words, options):
    found, _ = segment(encoder, photo, words, **options)
    assert (found.labels >= 0).all()
    assert found.known.shape == found.size
    assert ((found.known >= 0) & (found.known <= 1)).all()
    assert found.presence.shape == (len(found.names),)
    assert ((found.presence >= 0) & (found.presence <= 1)).all()


def test_a_word_is_known_where_it_beats_the_background_words(encoder, photo):
    """A softmax of one word and the nearest of them, at every eighth pixel; here in the middle of each 8 x 9 block."""
    found, _ = segment(encoder, photo, "cat")
    layout = WindowLayout.of((24, 36), 112, 56, encoder.patch)
    features = encoder.features(encoder.read_windows(photo.pixels, layout, lambda _: None), "naclip")
    embeddings = encoder.embed_texts(["cat", *background_words(["cat"])])
    words = ClassTextEmbeddings(embeddings, torch.arange(len(embeddings)))
    scores = PixelScores(features, words, (3, 4)).at_rows(slice(None))
    middles = (found.known[3::8, 4::9] + found.known[4::8, 4::9]) / 2
    np.testing.assert_allclose(middles, scores[0] / (scores[0] + scores[1:].amax(0)), atol=5e-3)


@pytest.mark.parametrize("at_once", [1, 40, 10_000])
def test_windows_do_not_depend_on_each_other(encoder, photo, monkeypatch, at_once):
    """One at a time, two, or all at once."""
    monkeypatch.setattr(windows, "WINDOW", dense_models.SIDE)
    layout, reported = WindowLayout.of((24, 36), 56, 16, dense_models.PATCH), []
    expected = encoder.read_windows(photo.pixels, layout, lambda _: None)
    monkeypatch.setitem(model._TOKENS_AT_ONCE, "cpu", at_once)
    found = encoder.read_windows(photo.pixels, layout, reported.append)
    assert len(found.tokens) == layout.count == 15
    assert reported == sorted(reported)
    assert reported[-1] == 1
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=0)


def test_bfloat16_names_nearly_all_pixels_alike(encoder, photo):
    fast = DenseClipEncoder(
        dense_models.ARCHITECTURE, dense_models.state(), "tiny", source="tiny", precision="bfloat16"
    )
    layout = WindowLayout.of((24, 36), 56, 16, dense_models.PATCH)
    near, exact = (
        each.features(each.read_windows(photo.pixels, layout, lambda _: None), "naclip") for each in (fast, encoder)
    )
    assert 1 > (near.patches * exact.patches).sum(-1).min() > 0.99


def test_catalogued_weights_become_an_encoder(encoder, tmp_path, monkeypatch):
    """Stored in half precision, as OpenAI's are, with what OpenAI's archive has beside the weights."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    catalogue.get("clip-vit-b16").path.write_bytes(b"weights")
    state = {name: value.half() for name, value in dense_models.state().items()} | {"context_length": torch.tensor(77)}
    monkeypatch.setattr(loading, "load_state_dict", lambda _: state)
    loaded = load_dense_clip(dense_models.ARCHITECTURE, "clip-vit-b16", "cpu")
    assert loaded.name.startswith("clip-vit-b16 ")
    assert loaded.name != encoder.name
    torch.testing.assert_close(loaded.embed_texts(["cat"]), encoder.embed_texts(["cat"]), atol=0.01, rtol=0)


@pytest.mark.parametrize("method", ["dense-clip-vitb16", "dense-clip-vitl14"])
def test_the_methods_have_the_published_defaults(method):
    options = registry.read_options(method, {})
    published = {"strategy": "naclip", "pamr": True, "masks": False, "short_side": 336, "stride": 112}
    assert options.given() == published | {"unlabelled": MethodOptions().unlabelled}
    assert registry.read_options(method, {"stride": "none"}).given()["stride"] is None
    assert registry.read_options(method, {"short_side": 336.0, "stride": "60"}).given()["stride"] == 60


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("strategy", "clip", "Last block must be one of naclip, sclip, kk, maskclip, vanilla; got 'clip'."),
        ("short_side", 40, "Short side must lie between 112 and 896; got 40."),
        ("stride", 20, "Windows must lie between 56 and 224; got 20."),
        ("pamr", "perhaps", "Refine outlines (PAMR) must be true or false; got 'perhaps'."),
    ],
)
def test_values_that_do_not_fit_are_refused(option, value, sentence):
    with pytest.raises(MethodError) as refused:
        registry.read_options("dense-clip-vitb16", {option: value})
    assert str(refused.value) == sentence
