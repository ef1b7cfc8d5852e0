"""Mask prompts: which patches are replaced, by what, when; numbers of the released adapter."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.models.clip.mask_prompts import DEPTH, patches_inside
from ovseg_demo.models.clip.weights import build_clip
from ovseg_demo.models.region_crops import masked_crops_and_masks
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from tests.helpers import tiny_clip
from tests.helpers.paths import FIXTURES

PUBLISHED = json.loads((FIXTURES / "ovseg_clip_adapter.json").read_text())
PARITY = {"atol": 5e-5, "rtol": 0}


@pytest.fixture(autouse=True)
def architecture(tmp_path):
    tiny_clip.register(tmp_path)


def tower(prompts: int = tiny_clip.PATCHES):
    return build_clip(tiny_clip.ARCHITECTURE, tiny_clip.weights(prompts), "tiny").visual


@pytest.fixture
def regions() -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (5, 3, 224, 224) and masks (5, 224, 224)."""
    proposals = MaskProposals.from_masks(tiny_clip.masks(), np.ones(5))
    return next(
        masked_crops_and_masks(tiny_clip.image(), proposals, size=224, mean=CLIP_MEAN, std=CLIP_STD, batch_size=5)
    )


def test_crops_and_masks_are_those_of_the_released_adapter(regions):
    crops, masks = regions
    torch.testing.assert_close(crops.mean((2, 3)), torch.tensor(PUBLISHED["crop_means"]), **PARITY)
    torch.testing.assert_close(crops[:, :, 56, 100], torch.tensor(PUBLISHED["crop_corner"]), **PARITY)
    assert masks.sum((1, 2)).tolist() == PUBLISHED["mask_pixels"]


@pytest.mark.parametrize(("prompts", "key"), [(tiny_clip.PATCHES, "prompts"), (1, "one_prompt"), (0, "plain")])
def test_embeddings_are_those_of_the_released_model(regions, prompts, key):
    crops, masks = regions
    with torch.no_grad():
        embeddings = F.normalize(tower(prompts)(crops, masks if prompts else None), dim=-1)
    torch.testing.assert_close(embeddings, torch.tensor(PUBLISHED[key]), **PARITY)


def test_one_mask_and_no_crop_are_enough(regions):
    crops, masks = regions
    with torch.no_grad():
        single = F.normalize(tower()(crops[1:2], masks[1:2]), dim=-1)
        torch.testing.assert_close(single, torch.tensor(PUBLISHED["prompts"][1:2]), **PARITY)
        assert tower()(crops[:0], masks[:0]).shape == (0, tiny_clip.EMBEDDING)


def test_a_patch_is_kept_for_a_single_pixel():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 3, 4] = True  # the last row of the upper patches, the first column of the right ones
    assert patches_inside(masks, (4, 4)).tolist() == [[False, True, False, False], [False] * 4]


@torch.no_grad()
def test_what_an_empty_mask_leaves_out_does_not_matter(regions):
    crops, masks = regions
    read = tower()
    nothing = torch.zeros_like(masks)
    torch.testing.assert_close(read(crops, nothing), read(torch.randn_like(crops), nothing))
    assert not torch.allclose(read(crops, masks), read(torch.randn_like(crops), masks))


@torch.no_grad()
def test_a_full_mask_is_no_mask(regions):
    crops, masks = regions
    read = tower()
    torch.testing.assert_close(read(crops, torch.ones_like(masks)), read(crops))


def test_prompts_learn_where_a_mask_leaves_patches_out(regions):
    crops, masks = regions
    read = tower()
    read(crops, masks).sum().backward()
    learned = read.mask_embedding.grad.abs().sum(2) > 0
    left_out = ~patches_inside(masks, read.patch_size).all(0)
    assert learned.shape == (DEPTH, tiny_clip.PATCHES)
    assert 0 < left_out.sum() < tiny_clip.PATCHES
    assert (learned == left_out).all()
    assert read.conv1.weight.grad.abs().sum() > 0


def test_masks_need_prompts(regions):
    read = tower(prompts=0)
    with pytest.raises(ValueError, match="no mask prompts"):
        read(*regions)
    read.initialise_prompts()
    assert read.mask_embedding.shape == (DEPTH, tiny_clip.PATCHES, tiny_clip.WIDTH)
    assert read.mask_embedding.std().item() == pytest.approx(0.02, rel=0.1)
    assert read(*regions).shape == (5, tiny_clip.EMBEDDING)
