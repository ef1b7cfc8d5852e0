"""SegCLIP as a method, on a model of narrow layers: options, caches, photos of every shape, loading."""

import numpy as np
import pytest
import torch

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import CheckpointError, MethodError
from ovseg_demo.methods import registry, windows
from ovseg_demo.methods.segclip import encoder as encoder_module
from ovseg_demo.methods.segclip.encoder import SegCLIPEncoder, load_encoder
from ovseg_demo.methods.segclip.method import SegCLIP
from ovseg_demo.methods.segclip.options import SegCLIPOptions
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights import catalogue, loading
from tests.helpers import segclip_models

WORDS = "cat, dog|puppy, sky"
READING, PLACING = "Reading the photo", "Placing regions"


def build(precision="float32", name="tiny") -> SegCLIPEncoder:
    return SegCLIPEncoder(
        segclip_models.published(), name, source="tiny", precision=precision, architecture=segclip_models.ARCHITECTURE
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> SegCLIPEncoder:
    segclip_models.register(tmp_path_factory.mktemp("architecture"))
    return build()


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", segclip_models.SIDE)
    monkeypatch.setattr(windows, "LONGEST", 6 * segclip_models.SIDE)


@pytest.fixture
def photo(random) -> image.Photo:
    return image.from_array(random.integers(0, 255, (60, 100, 3), np.uint8))


@pytest.fixture
def cache() -> Cache:
    return Cache(10**8)


def segment(encoder, photo, words=WORDS, cache=None, **options):
    stages = Stages(cache or Cache(10**8), SerialWorker(), ignore_progress)
    found = SegCLIP(encoder).segment(photo, vocabulary.parse(words), SegCLIPOptions(**options), stages)
    return found, stages.timings


@pytest.mark.parametrize("recipe", ["code", "paper"])
@pytest.mark.parametrize("size", [(1, 1), (10, 300), (300, 10), (33, 31)])
def test_photos_of_every_shape_have_a_result(encoder, random, size, recipe):
    """Also narrow ones, whose shorter side is less than that of a window, or of a patch."""
    photo = image.from_array(random.integers(0, 255, (*size, 3), np.uint8))
    found, _ = segment(encoder, photo, recipe=recipe, background=0.0)
    assert found.size == size
    assert (found.labels == found.top_classes[0]).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert found.top_classes.shape == found.top_scores.shape == (3, *size)


def test_one_word_competes_with_others(encoder, photo):
    """Without a rival its probability would always be 1."""
    found, _ = segment(encoder, photo, "cat", background=0.0)
    assert found.names == ("cat",)
    assert found.top_scores.max() < 1
    assert set(np.unique(found.labels)) <= {-1, 0}


@pytest.mark.parametrize("count", [2, 40])
def test_any_vocabulary_is_read(encoder, photo, count):
    words = [f"thing {number}" for number in range(count)]
    found, _ = segment(encoder, photo, ", ".join(words), background=0.0)
    assert found.names == tuple(words)
    assert len(found.top_classes) == min(count, 5)


def test_words_and_live_options_leave_the_photo_read(encoder, photo, cache):
    plain, timings = segment(encoder, photo, cache=cache)
    assert timings[READING] > 0
    live = {name for name, option in SegCLIPOptions.declared().items() if option.control and option.control.live}
    assert live == {"background", "image_prior"}
    for changed in ({"background": 0.9}, {"image_prior": False}, {"recipe": "paper"}):
        other, timings = segment(encoder, photo, cache=cache, **changed)
        assert timings[READING] == timings[PLACING] == timings["Reading words"] == 0
        assert not np.array_equal(other.scores, plain.scores)
    _, timings = segment(encoder, photo, WORDS + ", sea", cache=cache)
    assert timings[READING] == timings[PLACING] == 0


def test_the_regions_are_shown_as_they_formed(encoder, photo, cache):
    (shown,) = segment(encoder, photo, cache=cache)[0].evidence
    assert (shown.regions.shape, len(shown.captions)) == ((48, 80), 8)
    assert {index for index, caption in enumerate(shown.captions) if caption} == set(np.unique(shown.regions))
    (same,) = segment(encoder, photo, cache=cache, background=0.9, recipe="paper")[0].evidence
    assert np.array_equal(same.regions, shown.regions)
    assert same.captions == shown.captions


def test_overlapping_windows_read_the_photo_anew(encoder, photo, cache):
    plain, _ = segment(encoder, photo, cache=cache, background=0.0)
    other, timings = segment(encoder, photo, cache=cache, background=0.0, overlap=0.75)
    assert timings[READING] > 0
    assert len(np.unique(other.top_scores)) > len(np.unique(plain.top_scores))


def test_a_higher_threshold_leaves_more_unlabelled(encoder, photo, cache):
    left = [
        (segment(encoder, photo, cache=cache, recipe=recipe, background=threshold)[0].labels < 0).mean()
        for recipe in ("code", "paper")
        for threshold in (0.0, 0.5, 1.0)
    ]
    assert left[0] == left[3] == 0
    assert left[0] <= left[1] <= left[2] < 1  # the best region of each window remains
    assert left[3] <= left[4] <= left[5] == 1


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_windows_do_not_depend_on_each_other(encoder, photo, monkeypatch, at_once):
    layout, reported = WindowLayout.of((60, 100), 48, 16, segclip_models.PATCH), []
    expected = encoder.read_windows(photo.pixels, layout, lambda _: None)
    monkeypatch.setitem(encoder_module._WINDOWS_AT_ONCE, "cpu", at_once)
    found = encoder.read_windows(photo.pixels, layout, reported.append)
    assert len(found.regions) == len(found.windows) == len(found.soft) == layout.count == 3
    assert reported == sorted(reported)
    assert reported[-1] == 1
    torch.testing.assert_close(found.regions, expected.regions, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.soft, expected.soft, atol=1e-5, rtol=0)


def test_bfloat16_forms_nearly_the_same_regions(encoder, photo):
    layout = WindowLayout.of((60, 100), 48, 48, segclip_models.PATCH)
    near, exact = (each.read_windows(photo.pixels, layout, lambda _: None) for each in (build("bfloat16"), encoder))
    assert 1 > (near.windows * exact.windows).sum(-1).min() > 0.99
    assert (near.soft - exact.soft).abs().mean() < 0.05


@pytest.mark.parametrize("method", ["segclip", "segclip-own"])
def test_catalogued_weights_become_a_method(encoder, tmp_path, monkeypatch, method):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    catalogue.get(method).path.write_bytes(b"weights")
    monkeypatch.setattr(loading, "load_state_dict", lambda _: segclip_models.published())
    loaded = load_encoder(method, "cpu", segclip_models.ARCHITECTURE)
    assert loaded.name.startswith(f"{method} ")
    torch.testing.assert_close(loaded.embed_texts(["cat"]), encoder.embed_texts(["cat"]))


def test_a_file_that_lacks_a_tensor_is_refused(encoder):
    state = segclip_models.published()
    del state["clip.visual.ln_post.bias"]
    with pytest.raises(CheckpointError, match=r"some\.bin does not fit CLIP: 1 missing \(visual\.ln_post\.bias\)"):
        SegCLIPEncoder(state, "tiny", source="some.bin", architecture=segclip_models.ARCHITECTURE)


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("background", 1.2, "Background threshold must lie between 0 and 1; got 1.2."),
        ("recipe", "both", "Recipe must be one of code, paper; got 'both'."),
        ("image_prior", "perhaps", "Image prior must be true or false; got 'perhaps'."),
        ("overlap", 1, "Overlap of windows must lie between 0 and 0.75; got 1."),
    ],
)
def test_values_that_do_not_fit_are_refused(option, value, sentence):
    with pytest.raises(MethodError) as refused:
        registry.read_options("segclip", {option: value})
    assert str(refused.value) == sentence
