import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from eval.boundary import BoundaryCounts, boundary, boundary_distance


def counted(labels: np.ndarray, prediction: np.ndarray, classes: int) -> BoundaryCounts:
    counts = BoundaryCounts(classes)
    counts.add(labels, prediction)
    return counts


def paper_boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """As the paper words it: what `distance` erosions by 3 x 3 take away, with nothing outside the image."""
    return mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)


@st.composite
def blobs(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 90))
    classes = draw(st.integers(1, 4))
    scale = draw(st.integers(1, 12))

    def label_map():
        coarse = random.integers(-1, classes, (-(-height // scale), -(-width // scale)))
        return coarse.repeat(scale, 0).repeat(scale, 1)[:height, :width].astype(np.int32)

    labels = label_map()
    prediction = np.where(random.random(labels.shape) < 0.95, np.roll(labels, 1, 1), label_map() + 1)
    return classes, labels, prediction


@given(blobs())
def test_counts_agree_with_erosion_class_by_class(case):
    classes, labels, prediction = case
    found, distance = counted(labels, prediction, classes).counts, boundary_distance(labels.shape)
    for index in range(classes):
        truth = paper_boundary(labels == index, distance)
        given = paper_boundary((prediction == index) & (labels >= 0), distance)
        assert found[index].tolist() == [(truth & given).sum(), truth.sum(), given.sum()]


def test_a_boundary_is_as_wide_as_the_distance_and_the_edge_of_the_image_is_one():
    labels = np.zeros((20, 30), int)
    labels[:, 15:] = 1
    edge = boundary(labels, 2)
    assert edge[:, 13:17].all()
    assert edge[:2].all()
    assert edge[:, -2:].all()
    assert not edge[2:-2, 2:13].any()
    assert not edge[2:-2, 17:-2].any()


def test_the_distance_is_two_percent_of_the_diagonal_and_never_nothing():
    assert boundary_distance((300, 400)) == 10
    assert boundary_distance((3, 4)) == 1


def test_scores_by_hand():
    labels = np.array([[0, 0, 0, 0, 1, 1]])  # every pixel of a single row is boundary
    counts = counted(labels, np.array([[0, 0, 2, 0, 1, -1]]), 4)
    assert counts.iou()[:3].tolist() == [0.75, 0.5, 0]
    assert np.isnan(counts.iou()[3])
    assert counts.mean() == 0.625
    counts.merge(counted(labels, labels, 4))
    assert counts.mean() == (7 / 8 + 3 / 4) / 2


def test_the_inside_of_a_large_region_does_not_count():
    labels = np.full((200, 200), -1, np.int32)
    labels[20:180, 20:180] = 0
    prediction = np.zeros_like(labels)
    prediction[50:150, 50:150] = -1  # a hole far from the contour makes one of its own
    whole, holed = counted(labels, np.zeros_like(labels), 1), counted(labels, prediction, 1)
    assert whole.mean() == 1
    both, truth, given = holed.counts[0]
    assert both == truth
    assert given > truth


@pytest.mark.filterwarnings("error")
def test_nothing_labelled_is_nan():
    assert np.isnan(counted(np.full((5, 5), -1), np.zeros((5, 5), int), 2).mean())
