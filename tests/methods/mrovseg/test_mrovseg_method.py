"""MROVSeg as a method, on a small model: photos of every shape, caches, notes, evidence, faster layers, loading."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import CheckpointError, MethodError
from ovseg_demo.methods import registry
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.mrovseg import checkpoint
from ovseg_demo.methods.mrovseg.loading import load_mrovseg
from ovseg_demo.methods.mrovseg.method import MROVSeg
from ovseg_demo.methods.mrovseg.optimised import optimise_model
from ovseg_demo.methods.mrovseg.options import MROVSegOptions
from ovseg_demo.methods.mrovseg.reader import MROVSegReader
from ovseg_demo.methods.mrovseg.scores import PhotoQueries, QueryClasses, QueryScores, class_probabilities, known_share
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights import catalogue
from tests.helpers import mrovseg_models

WORDS = "cat, dog|puppy, sky"
READING = "Reading the photo"
SMALL = MROVSegOptions.model_construct(short_side=64)
"""Less than what people may ask for, so that the tests are fast."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> MROVSegReader:
    mrovseg_models.register(tmp_path_factory.mktemp("architecture"))
    torch.manual_seed(0)
    clip, model = checkpoint.build_mrovseg(mrovseg_models.clip_state(), mrovseg_models.SETTINGS, "tiny")
    return MROVSegReader(clip, model, "tiny mrovseg", precision="float32")


@pytest.fixture
def photo(random) -> image.Photo:
    return image.from_array(random.integers(0, 255, (60, 100, 3), np.uint8))


@pytest.fixture
def cache() -> Cache:
    return Cache(10**8)


def segment(reader, photo, words=WORDS, cache=None, **options):
    stages = Stages(cache or Cache(10**8), SerialWorker(), ignore_progress)
    chosen = SMALL.model_copy(update=options)
    return MROVSeg(reader).segment(photo, vocabulary.parse(words), chosen, stages), stages.timings


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (100, 3), (33, 31)])
def test_photos_of_every_shape_have_a_result(reader, random, size):
    photo = image.from_array(random.integers(0, 255, (*size, 3), np.uint8))
    found, _ = segment(reader, photo)
    assert found.size == size
    assert (found.labels == found.top_classes[0]).all()
    assert found.known is not None
    assert found.presence is not None
    for values in (found.scores, found.known, found.presence):
        assert ((values >= 0) & (values <= 1)).all()
    assert found.presence.shape == (3,)


@pytest.mark.parametrize("words", ["cat", ", ".join(f"thing {number}" for number in range(40))])
def test_any_vocabulary_is_read(reader, photo, words):
    found, _ = segment(reader, photo, words)
    assert len(found.names) == words.count(",") + 1
    assert set(np.unique(found.labels)) <= set(range(len(found.names)))


def test_other_words_leave_the_photo_read_and_another_size_does_not(reader, photo, cache):
    _, timings = segment(reader, photo, cache=cache)
    assert timings[READING] > 0
    _, timings = segment(reader, photo, "cat, sea", cache)
    assert timings[READING] == 0
    larger, timings = segment(reader, photo, cache=cache, short_side=96)
    assert timings[READING] > 0
    assert larger.notes == ("Read at 160 × 96 pixels in slices, and as a whole at a smaller size.",)


def test_no_word_is_compared_with_background_words_where_every_pixel_gets_one(reader, photo, cache):
    plain, _ = segment(reader, photo, cache=cache)
    found, timings = segment(reader, photo, cache=cache, unlabelled=0.0)
    assert "Reading background words" not in timings
    assert found.known is None
    assert found.presence is None
    assert np.array_equal(found.labels, plain.labels)


def test_scale_attention_and_the_strongest_masks_are_shown(reader, photo):
    trust, *masks = segment(reader, photo)[0].evidence
    assert trust.title == "Trust in the slices (scale attention)"
    assert trust.maps.shape == masks[0].maps.shape == (1, 64, 107)
    assert 0 < trust.maps.min() < trust.maps.max() < 1
    assert [mask.title.split(":")[0] for mask in masks] == [f"Mask {rank}" for rank in range(1, 6)]
    assert all(mask.title.split(": ")[1].rsplit(" ", 1)[0] in {"cat", "dog", "sky"} for mask in masks)


def queries(random, count=7) -> PhotoQueries:
    """Queries of a photo that was read at 50 x 40 pixels, with padding to 64 x 48."""
    masks = torch.from_numpy(random.standard_normal((count, 16, 12))).float()
    embeddings = F.normalize(torch.from_numpy(random.standard_normal((count, 4))).float(), dim=1)
    return PhotoQueries(masks, embeddings, None, (50, 40), (64, 48))


@pytest.mark.parametrize("size", [(50, 40), (75, 64), (20, 91)])
def test_scores_are_interpolated_as_masks_that_are_enlarged_cut_and_resized(random, size):
    """The published steps, with maps of the photo's size for all queries."""
    photo, weights = queries(random), torch.from_numpy(random.random((7, 3))).float()
    enlarged = F.interpolate(photo.masks[None], (64, 48), mode="bilinear", align_corners=False)[..., :50, :40]
    masks = F.interpolate(enlarged, size, mode="bilinear", align_corners=False)[0].sigmoid()
    expected = torch.einsum("qc,qhw->chw", weights, masks)
    scores = QueryScores(photo, weights, size)
    for count in (1, 2 * size[1], 3 * size[1] + 5):
        start = random.integers(0, size[0] * size[1] - count)
        rows, columns = np.divmod(np.arange(start, start + count), size[1])
        torch.testing.assert_close(scores.sample(rows, columns), expected[:, rows, columns], atol=1e-5, rtol=1e-5)
    rows, columns = np.array([7, 3, 7, 12]), np.array([0, 39, 5, 5])
    torch.testing.assert_close(scores.sample(rows, columns), expected[:, rows, columns], atol=1e-5, rtol=1e-5)
    assert scores.sample(rows[:0], columns[:0]).shape == (3, 0)


def test_void_takes_its_share_and_a_class_has_its_best_word():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.5]])
    texts = ClassTextEmbeddings(torch.zeros(3, 1), torch.tensor([0, 0, 1]))
    expected = torch.tensor([[3.0, 2.0, 0.5]]).softmax(1)[:, :2]
    torch.testing.assert_close(class_probabilities(logits, texts), expected)


def test_what_is_known_is_weighted_by_what_a_query_contributes(random):
    photo = queries(random, 2)
    classes = QueryClasses(torch.tensor([[0.5, 0.1], [0.2, 0.3]]), torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    masks = photo.resized(photo.masks, photo.coarse_size).sigmoid()
    first = 0.5 * masks[0] / (0.5 * masks[0] + 0.2 * masks[1])
    second = 0.3 * masks[1] * 0.5 / (0.1 * masks[0] + 0.3 * masks[1])
    torch.testing.assert_close(known_share(photo, classes), torch.stack([first, second]))


@pytest.mark.parametrize(
    "changed", [{}, {"biases_per_block": True}, {"adapter": False}, {"fusion": False}, {"masked_attention": False}]
)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_faster_layers_compute_the_same_function(reader, changed, precision, tolerance):
    pixels = mrovseg_models.pixels(48, 80)
    with torch.inference_mode():
        expected = mrovseg_models.build(**changed)(pixels)
        model = mrovseg_models.build(**changed).requires_grad_(False)
        optimise_model(model, precision)
        found = model(pixels)
    scale = expected.masks.abs().max()
    torch.testing.assert_close(found.masks / scale, expected.masks / scale, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.embeddings, expected.embeddings, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.scale_attention, expected.scale_attention, atol=tolerance, rtol=0)
    assert found.masks.dtype == found.embeddings.dtype == found.scale_attention.dtype == torch.float32


@pytest.mark.parametrize("method", ["mrovseg-own", "mrovseg-own-l"])
def test_a_trained_file_and_its_clip_become_a_method(reader, photo, tmp_path, monkeypatch, method):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    clip, (_, clip_id) = mrovseg_models.clip_state(), registry.get(method).checkpoints
    model = mrovseg_models.build()
    metadata = checkpoint.file_metadata(model.settings, clip)
    save_file(checkpoint.trained_tensors(model), catalogue.get(method).path, metadata)
    save_file(clip, catalogue.get(clip_id).path)
    stages = Stages(Cache(10**8), SerialWorker(), ignore_progress)
    found = load_mrovseg(method, clip_id, "cpu").segment(photo, vocabulary.parse(WORDS), SMALL, stages)
    assert found.size == (60, 100)

    save_file({**clip, "visual.proj": clip["visual.proj"] + 1}, catalogue.get(clip_id).path)
    with pytest.raises(CheckpointError, match="was trained on another CLIP"):
        load_mrovseg(method, clip_id, "cpu")


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("mrovseg-own", "Short side must lie between 320 and 1280; got 100."),
        ("mrovseg-own-l", "Short side must lie between 336 and 1280; got 100."),
    ],
)
def test_other_sizes_are_refused(method, sentence):
    with pytest.raises(MethodError) as refused:
        registry.read_options(method, {"short_side": 100})
    assert str(refused.value) == sentence
