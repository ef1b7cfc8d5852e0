"""Which points are skipped: near an earlier prompt, with similar features and under the same masks."""

import numpy as np
import pytest
import torch

from ovseg_demo.proposals.sam.mobile_sam import EncodedImage
from ovseg_demo.proposals.sam.point_filter import PointFilter


@pytest.fixture
def two_halves() -> EncodedImage:
    """An image whose left half looks like one thing and whose right half like another."""
    torch.manual_seed(0)
    left, right = torch.randn(2, 256, 1, 1)
    features = torch.cat([left.expand(256, 64, 32), right.expand(256, 64, 32)], 2)[None]
    return EncodedImage(features, size=(512, 512), scaled=(1024, 1024))


POINTS = torch.tensor([[100.0, 100], [120, 100], [120, 900], [900, 100]])


def test_before_the_first_prompt_all_points_remain(two_halves):
    assert PointFilter(two_halves, 0.4).remaining(POINTS).equal(POINTS)


def everywhere() -> np.ndarray:
    return np.ones((512, 512), bool)


def test_near_points_with_similar_features_are_skipped(two_halves):
    point_filter = PointFilter(two_halves, 0.4)
    point_filter.add_prompts(POINTS[:1])
    point_filter.add_mask(everywhere())
    assert point_filter.remaining(POINTS).equal(POINTS[2:])


def test_where_no_mask_is_no_point_is_skipped(two_halves):
    point_filter = PointFilter(two_halves, 0.4)
    point_filter.add_prompts(POINTS[:1])
    assert point_filter.remaining(POINTS).equal(POINTS)


def test_another_mask_brings_a_point_back(two_halves):
    point_filter = PointFilter(two_halves, 0.4)
    point_filter.add_prompts(POINTS[:1])
    point_filter.add_mask(everywhere())
    mask = np.zeros((512, 512), bool)
    mask[:, 55:] = True  # pixel 60 is the second point's
    point_filter.add_mask(mask)
    assert point_filter.remaining(POINTS).equal(POINTS[1:])
    mask[:] = True
    mask[:, 55:] = False
    point_filter.add_mask(mask)
    assert point_filter.remaining(POINTS).equal(POINTS[1:]), "two masks, one over each, are not the same cover"


def test_without_a_threshold_no_point_is_skipped(two_halves):
    point_filter = PointFilter(two_halves, None)
    point_filter.add_prompts(POINTS)
    point_filter.add_mask(everywhere())
    assert point_filter.remaining(POINTS).equal(POINTS)


def test_a_featureless_image_is_no_error():
    point_filter = PointFilter(EncodedImage(torch.zeros(1, 256, 64, 64), (10, 10), (1024, 1024)), 0.4)
    point_filter.add_prompts(POINTS[:1])
    point_filter.add_mask(np.ones((10, 10), bool))
    assert point_filter.remaining(POINTS).equal(POINTS), "its features say nothing, so every point remains"
