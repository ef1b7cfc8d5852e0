"""The mini model's cost maps: what each channel is, and how words become classes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.sed.mini import CENTRE, DECODER_SIZES, FOLD, MAP_SPREAD, SPREAD, MiniCostMaps
from ovseg_demo.methods.sed.options import SEDMiniOptions
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.result import Segmentation
from ovseg_demo.ui import gallery


@pytest.fixture(scope="module")
def vlm() -> MiniModel:
    return MiniModel()


@pytest.fixture(scope="module")
def photo(vlm):
    return MiniCostMaps(vlm).embed_image(
        np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8), keep_aspect=False
    )


def logits(cost: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The logits in a cost map (T, P, h, w): of the middle, the large and the small size, and of the anchors."""
    parts = (cost * SPREAD + CENTRE).split([FOLD**2, FOLD**2, (FOLD // 2) ** 2, 1], 1)
    return tuple(
        F.pixel_shuffle(part, fold)[:, 0] for part, fold in zip(parts, (FOLD, FOLD, FOLD // 2, 1), strict=True)
    )


def model_logits(vlm, photo, rows) -> tuple[torch.Tensor, ...]:
    dense = (vlm.dense_logits(scale, rows) for scale in (photo.middle, photo.large, photo.small))
    return *dense, vlm.anchor_logits(photo.middle, rows)


def test_a_cost_map_holds_what_dense_and_anchor_logits(vlm, photo):
    costs, rows = MiniCostMaps(vlm), vlm.embed_texts(["cat", "sky", "road"])
    cost = costs.cost_map(photo, costs.class_embeddings(rows, torch.arange(3)))
    assert cost.shape == (3, DECODER_SIZES.prompts, 11, 16)
    for found, known in zip(logits(cost), model_logits(vlm, photo, rows), strict=True):
        torch.testing.assert_close(found, known, atol=1e-4, rtol=1e-4)


def test_the_large_and_the_small_reading_lie_on_the_grid_of_the_middle_one(photo):
    assert [each.dense.shape[:2] for each in (photo.middle, photo.large, photo.small)] == [(88, 128)] * 2 + [(44, 64)]
    assert [tuple(each.anchors.shape[:2]) for each in (photo.middle, photo.large, photo.small)] == [
        (11, 16),
        (21, 32),
        (5, 8),
    ]


def test_a_class_scores_as_its_best_word(vlm, photo):
    costs, rows = MiniCostMaps(vlm), vlm.embed_texts(["cat", "sofa", "couch"])
    cost = costs.cost_map(photo, costs.class_embeddings(rows, torch.tensor([0, 1, 1])))
    for found, alone in zip(logits(cost), model_logits(vlm, photo, rows), strict=True):
        torch.testing.assert_close(found, torch.stack([alone[0], alone[1:].amax(0)]), atol=1e-4, rtol=1e-4)


def test_a_class_costs_the_same_whatever_the_others_are(vlm, photo):
    costs, rows = MiniCostMaps(vlm), vlm.embed_texts(["cat", "sofa", "couch"])
    alone = costs.cost_map(photo, costs.class_embeddings(rows[:1], torch.zeros(1, dtype=torch.int64)))
    among = costs.cost_map(photo, costs.class_embeddings(rows, torch.tensor([0, 1, 1])))
    torch.testing.assert_close(among[:1], alone, atol=1e-4, rtol=1e-4)


def test_the_skips_are_the_towers_maps_coarsest_first(vlm, photo):
    skips = MiniCostMaps(vlm).skips(photo)
    assert [tuple(level.shape) for level in skips] == [
        (channels, 11 * times, 16 * times) for channels, times in zip(DECODER_SIZES.skips, (2, 4, 8), strict=True)
    ]
    for level, known in zip(skips, photo.middle.maps, strict=True):
        assert level.dtype == torch.float32
        torch.testing.assert_close(level * MAP_SPREAD, known.float())


def test_a_photo_keeps_its_aspect_whatever_is_asked(vlm):
    pixels = np.zeros((30, 60, 3), np.uint8)
    for keep in (False, True):
        assert MiniCostMaps(vlm).embed_image(pixels, keep).middle.anchors.shape[:2] == (8, 16)


def segment(engine, photo, words, **options) -> Segmentation:
    return engine.segment(photo, vocabulary.parse(words), "sed-mini", SEDMiniOptions(**{"unlabelled": 0, **options}))


@pytest.fixture(scope="module")
def pizza() -> image.Photo:
    return image.load(gallery.FOLDER / "pizza.jpg")


def test_the_bundled_decoder_names_a_photo(engine, pizza):
    found = segment(engine, pizza, "horse, pizza, bus, table, sky")
    shares = {summary.name: summary.share for summary in found.summary()}
    assert shares["pizza"] > 0.25
    assert shares["pizza"] + shares.get("table", 0) > 0.8
    assert len(found.evidence) == 5


def test_early_rejection_keeps_the_words_that_are_there(engine, pizza):
    whole = segment(engine, pizza, "horse, pizza, bus, table, sky")
    found = segment(engine, pizza, "horse, pizza, bus, table, sky", rejection=(2, 2, 2))
    assert [len(step.classes) for step in found.evidence][:2] == [5, 5]
    assert 1 in found.evidence[-1].classes
    assert (found.labels == whole.labels).mean() > 0.8


def test_one_word_is_left_out_where_background_words_fit_better(engine, pizza):
    found = segment(engine, pizza, "pizza", unlabelled=0.35)
    assert set(np.unique(found.labels)) == {-1, 0}
    assert (found.labels == 0).mean() > 0.2


@pytest.mark.parametrize("shape", [(1, 1), (10, 1500), (1500, 10), (33, 31)])
def test_photos_of_every_shape_have_a_result(engine, random, shape):
    photo = image.from_array(random.integers(0, 255, (*shape, 3), np.uint8))
    found = segment(engine, photo, "cat, dog, sky")
    assert found.size == photo.pixels.shape[:2]
    assert set(np.unique(found.labels)) <= {0, 1, 2}
