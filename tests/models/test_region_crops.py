"""Masked crops: the right pixels, zero elsewhere, one crop a proposal."""

import numpy as np
import pytest
import torch

from ovseg_demo.models.region_crops import masked_crops, masked_crops_and_masks
from ovseg_demo.proposals.base import MaskProposals

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


def crops(image: np.ndarray, masks: np.ndarray, size: int = 8, batch_size: int = 4, **options) -> torch.Tensor:
    proposals = MaskProposals.from_masks(masks, np.ones(len(masks)))
    return torch.cat(
        list(masked_crops(image, proposals, size=size, mean=MEAN, std=STD, batch_size=batch_size, **options))
    )


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def test_crop_of_native_size_is_the_normalised_box(image):
    masks = np.zeros((1, 12, 20), bool)
    masks[0, 2:10, 5:13] = True
    expected = (image[2:10, 5:13] - np.array(MEAN)) / np.array(STD)
    torch.testing.assert_close(crops(image, masks)[0].permute(1, 2, 0), torch.tensor(expected).float())


def test_fill_is_exactly_zero_outside_the_mask(image):
    masks = np.zeros((1, 12, 20), bool)
    masks[0, 2:10, 5:13] = np.eye(8, dtype=bool)
    crop = crops(image, masks)[0]
    outside = ~torch.eye(8, dtype=torch.bool)
    assert (crop[:, outside] == 0).all()
    assert (crop[:, ~outside] != 0).any()


def test_pixels_outside_the_box_change_nothing(image):
    masks = np.zeros((1, 12, 20), bool)
    masks[0, 3:7, 4:11] = True
    other = image.copy()
    other[~masks[0]] = 255 - other[~masks[0]]
    assert torch.equal(crops(image, masks, size=16), crops(other, masks, size=16))


@pytest.mark.parametrize("antialias", [False, True])
def test_one_pixel_becomes_a_flat_crop(image, antialias):
    masks = np.zeros((1, 12, 20), bool)
    masks[0, 11, 19] = True
    crop = crops(image, masks, antialias=antialias)[0]
    expected = (torch.tensor(image[11, 19]) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(crop, expected[:, None, None].expand(3, 8, 8), atol=1e-4, rtol=1e-4)


def test_empty_mask_becomes_fill(image):
    assert (crops(image, np.zeros((1, 12, 20), bool)) == 0).all()


def test_no_proposals_give_no_batches(image):
    proposals = MaskProposals.from_masks(np.zeros((0, 12, 20), bool), np.zeros(0))
    assert list(masked_crops(image, proposals, size=8, mean=MEAN, std=STD, batch_size=4)) == []


def test_batches_keep_order_and_bound_their_size(image):
    masks = np.zeros((5, 12, 20), bool)
    for index, mask in enumerate(masks):
        mask[index : index + 4, index : index + 9] = True
    proposals = MaskProposals.from_masks(masks, np.ones(5))
    batches = list(masked_crops(image, proposals, size=8, mean=MEAN, std=STD, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    singly = torch.cat([crops(image, masks[i : i + 1]) for i in range(5)])
    assert torch.equal(torch.cat(batches), singly)


def test_each_crop_has_the_mask_of_its_box(image):
    masks = np.zeros((3, 12, 20), bool)
    masks[0, 2:6, 5:9] = np.eye(4, dtype=bool)
    masks[1, 11, 19] = True
    proposals = MaskProposals.from_masks(masks, np.ones(3))
    (_, inside), (_, empty) = masked_crops_and_masks(image, proposals, size=8, mean=MEAN, std=STD, batch_size=2)
    assert torch.equal(inside[0], torch.eye(4, dtype=torch.bool).repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert inside[1].all()
    assert empty.shape == (1, 8, 8)
    assert not empty.any()
