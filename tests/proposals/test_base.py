"""MaskProposals: packing, unpacking, boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ovseg_demo.proposals.base import MaskProposals

MASKS = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=19).flatmap(lambda shape: arrays(bool, shape))


@given(MASKS)
def test_masks_survive_packing(masks):
    proposals = MaskProposals.from_masks(masks, np.linspace(1, 0, len(masks)))
    assert len(proposals) == len(masks)
    assert proposals.size == masks.shape[1:]
    assert proposals.scores.dtype == np.float32
    np.testing.assert_array_equal(proposals.masks(), masks)
    for index, mask in enumerate(masks):
        assert proposals.mask(index).dtype == bool
        np.testing.assert_array_equal(proposals.mask(index), mask)


@given(MASKS)
def test_boxes_are_tight(masks):
    boxes = MaskProposals.from_masks(masks, np.zeros(len(masks))).boxes()
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        if not mask.any():
            assert (x0, y0, x1, y1) == (0, 0, 0, 0)
            continue
        inside = mask[y0:y1, x0:x1]
        assert inside.sum() == mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@given(st.integers(1, 40), st.integers(1, 40))
def test_no_masks(height, width):
    proposals = MaskProposals.from_masks(np.zeros((0, height, width), bool), np.zeros(0))
    assert len(proposals) == 0
    assert proposals.size == (height, width)
    assert proposals.masks().shape == (0, height, width)
    assert proposals.boxes().shape == (0, 4)


def test_packing_is_eightfold():
    proposals = MaskProposals.from_masks(np.ones((3, 5, 16), bool), np.ones(3))
    assert proposals.nbytes == 3 * 5 * 2 + 3 * 4
