"""Which points are skipped: near, alike and under the same masks."""

import numpy as np
import pytest
import torch

from ovseg_demo.proposals.sam.mobile_sam import EncodedImage
from ovseg_demo.proposals.sam.point_filter import PointFilter


@pytest.fixture
def halves() -> EncodedImage:
    """An image whose left half looks like one thing and whose right half like another."""
    torch.manual_seed(0)
    left, right = torch.randn(2, 256, 1, 1)
    features = torch.cat([left.expand(256, 64, 32), right.expand(256, 64, 32)], 2)[None]
    return EncodedImage(features, size=(512, 512), scaled=(1024, 1024))


POINTS = torch.tensor([[100.0, 100], [120, 100], [120, 900], [900, 100]])


def test_before_anything_is_asked_all_points_are_open(halves):
    assert PointFilter(halves, 0.4).unanswered(POINTS).equal(POINTS)


def everywhere() -> np.ndarray:
    return np.ones((512, 512), bool)


def test_near_points_that_look_alike_are_answered(halves):
    explored = PointFilter(halves, 0.4)
    explored.ask(POINTS[:1])
    explored.add(everywhere())
    assert explored.unanswered(POINTS).equal(POINTS[2:])


def test_where_no_mask_is_nothing_is_answered(halves):
    explored = PointFilter(halves, 0.4)
    explored.ask(POINTS[:1])
    assert explored.unanswered(POINTS).equal(POINTS)


def test_another_mask_reopens_a_point(halves):
    explored = PointFilter(halves, 0.4)
    explored.ask(POINTS[:1])
    explored.add(everywhere())
    mask = np.zeros((512, 512), bool)
    mask[:, 55:] = True  # pixel 60 is the second point's
    explored.add(mask)
    assert explored.unanswered(POINTS).equal(POINTS[1:])
    mask[:] = True
    mask[:, 55:] = False
    explored.add(mask)
    assert explored.unanswered(POINTS).equal(POINTS[1:]), "two masks, one over each, are not the same cover"


def test_a_search_for_all_skips_nothing(halves):
    explored = PointFilter(halves, None)
    explored.ask(POINTS)
    explored.add(everywhere())
    assert explored.unanswered(POINTS).equal(POINTS)


def test_a_featureless_image_is_no_error():
    explored = PointFilter(EncodedImage(torch.zeros(1, 256, 64, 64), (10, 10), (1024, 1024)), 0.4)
    explored.ask(POINTS[:1])
    explored.add(np.ones((10, 10), bool))
    assert explored.unanswered(POINTS).equal(POINTS), "nothing can be told of it, so every point is asked about"
