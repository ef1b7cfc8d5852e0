"""The mini MROVSeg: what it reads of a photo, where it begins, and what its queries find."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.mrovseg.mini import embed_photo, read_photo
from ovseg_demo.methods.mrovseg.mini_model import CELL, MiniMROVSegModel, PlaceQueries
from ovseg_demo.models.mini.heads import WIDTH
from ovseg_demo.models.mini.model import MiniModel, normalised


@pytest.fixture(scope="module")
def vlm() -> MiniModel:
    return MiniModel()


@pytest.fixture(scope="module")
def new_model() -> MiniMROVSegModel:
    torch.manual_seed(0)
    return MiniMROVSegModel().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def test_a_photo_is_read_whole_and_in_slices_of_that_size(vlm, new_model, pixels):
    read = read_photo(vlm, new_model.dense, pixels, 96)
    assert read.low.shape == read.high.shape == (1, WIDTH, 16, 24)
    whole = vlm.pyramid(normalised(pixels, (64, 96)))
    torch.testing.assert_close(read.low, new_model.dense.maps(whole))
    enlarged = normalised(pixels, (128, 192))
    corner = vlm.pyramid(enlarged[..., 64:, :96])  # the slice at the bottom left
    anchors = F.avg_pool2d(vlm.anchor_weights(corner[-1]), 2)
    torch.testing.assert_close(read.high_anchors[:, :, 1:, : anchors.shape[3]], anchors[:, :, :1], atol=1e-4, rtol=1e-4)


def test_a_new_model_is_the_dense_head_on_the_mean_of_both_resolutions(new_model):
    low, high = torch.randn(2, WIDTH, 16, 24), torch.randn(2, WIDTH, 16, 24)
    predicted = new_model(low, high)
    wanted = new_model.dense.embed(((low + high) / 2).movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(predicted.embeddings, wanted)
    torch.testing.assert_close(predicted.attention, torch.full((2, 16, 24), 0.5))


def test_queries_find_the_places_that_show_the_same_thing():
    torch.manual_seed(0)
    queries = PlaceQueries().eval()
    things = F.normalize(torch.randn(2, 384), dim=1)
    embedded = things[(torch.arange(4 * CELL) >= 2 * CELL).long()].T[None, :, None].expand(-1, -1, 2 * CELL, -1)
    masks, classes = queries(torch.randn(1, WIDTH, 2 * CELL, 4 * CELL), embedded, torch.zeros(384))
    assert masks.shape == (1, 8, 2 * CELL, 4 * CELL)
    left, right = masks[0, 0], masks[0, 3]
    at_left = (torch.arange(4 * CELL) < 2 * CELL).expand(2 * CELL, -1)
    assert torch.equal(left > 0, at_left)
    assert torch.equal(right > 0, ~at_left)
    assert (classes[0, 0] @ things.T).argmax() == 0
    assert (classes[0, 3] @ things.T).argmax() == 1


def test_a_full_share_gives_places_what_their_queries_say(new_model):
    low, high = torch.randn(1, WIDTH, 16, 24), torch.randn(1, WIDTH, 16, 24)
    predicted = new_model(low, high)
    voting = MiniMROVSegModel().eval().requires_grad_(False)
    voting.load_state_dict(new_model.state_dict() | {"share": torch.ones(())})
    weights = predicted.masks[0, :, 5, 7].sigmoid()
    wanted = F.normalize(weights @ predicted.classes[0], dim=0)
    torch.testing.assert_close(voting(low, high).embeddings[0, :, 5, 7], wanted, atol=1e-5, rtol=1e-4)


def test_photos_are_enlarged_for_the_slices_alone(vlm, new_model):
    features = embed_photo(vlm, new_model, np.zeros((64, 352, 3), np.uint8))
    assert features.places.anchors.shape[:2] == (2, 11)  # at stride 32
    assert features.places.dense.shape == (16, 88, 384)
    assert features.nbytes == features.places.nbytes + 16 * 88 * 4
    smaller = embed_photo(vlm, new_model, np.zeros((20, 50, 3), np.uint8))
    assert smaller.places.anchors.shape[:2] == (4, 10)


def test_the_method_names_places_and_tells_how_it_read_the_photo(engine):
    photo = image.from_array(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    result = engine.segment(photo, vocabulary.parse("cat, sky"), "mrovseg-mini")
    assert result.size == (40, 60)
    assert result.presence.shape == (2,)
    [trust] = result.evidence
    assert trust.maps.shape == (1, 56, 80)
    assert (trust.maps > 0).all()
    assert (trust.maps < 1).all()
    assert result.notes == ("Read at 448 × 640 pixels in slices, and at 224 × 320 as a whole.",)
