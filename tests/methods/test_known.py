"""What is known and what is present, against numbers by hand and loops over pixels."""

import numpy as np
import pytest
import torch

from ovseg_demo.methods import known
from ovseg_demo.models.base import UNCALIBRATED, Calibration
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.proposals.cells import cut_cells
from ovseg_demo.result import Segmentation

NAMES = ("a", "b", "c")


def labelled(labels: np.ndarray, names: tuple[str, ...] = NAMES) -> Segmentation:
    """A result of which only the labels matter."""
    none = np.zeros((0, *labels.shape))
    return Segmentation(names, labels.astype(np.int32), np.ones(labels.shape, np.float32), none, none)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_log_odds_weigh_a_word_against_the_background_words():
    logits = torch.tensor([[1.0, 3.0], [2.0, -1.0]])
    background = torch.tensor([[0.0, 4.0], [0.0, 4.0]])  # log sum exp: 0.6931 and 4.6931
    found = known.log_odds(logits, background, Calibration(word=2.0, background=0.5, offset=-1.0, all_rivals=True))
    torch.testing.assert_close(found, torch.tensor([[0.6534, 2.6534], [2.6534, -5.3466]]), atol=1e-4, rtol=0)


def test_background_words_weigh_at_least_the_floor():
    logits, background = torch.zeros(1, 2), torch.tensor([[-7.0, 5.0]])
    found = known.log_odds(logits, background, Calibration(background=0.5, floor=3.0, all_rivals=True))
    torch.testing.assert_close(found, torch.tensor([[-1.5, -2.5]]))


def test_without_calibration_the_nearest_background_word_competes_by_a_softmax():
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = known.log_odds(logits[:1], logits[1:], UNCALIBRATED).sigmoid()
    torch.testing.assert_close(found, torch.stack([logits[0], logits[1:].amax(0)]).softmax(0)[:1])


def test_a_class_is_present_when_a_hundredth_of_the_places_shows_it():
    odds = torch.full((2, 20, 15), -4.0)  # 300 places: the third highest counts
    odds[0, 3, 4], odds[0, 19, 0] = 9.0, 7.0
    odds[1, 3, 4:7] = torch.tensor([9.0, 2.0, 7.0])
    np.testing.assert_allclose(known.presence(odds), sigmoid(np.array([-4.0, 2.0])), rtol=1e-5)
    found = known.presence(odds, Calibration(presence=0.5, presence_offset=-1.0))
    np.testing.assert_allclose(found, sigmoid(np.array([-3.0, 0.0])), rtol=1e-5)
    assert found.dtype == np.float32


def test_of_few_places_the_highest_counts_and_without_any_nothing_is_present():
    np.testing.assert_allclose(known.presence(torch.tensor([[1.0, 3.0, 2.0]])), sigmoid(np.array([3.0])), rtol=1e-5)
    assert known.presence(torch.zeros(2, 0)).tolist() == [0, 0]
    assert known.presence(torch.zeros(0, 4, 4)).shape == (0,)


def interpolated(plane: np.ndarray, y: float, x: float) -> float:
    """Bilinear, the borders being repeated."""
    total, (height, width) = 0.0, plane.shape
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            total += weight * plane[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
    return total


@pytest.mark.parametrize("grid", [(4, 3), (7, 11), (1, 1), (20, 5)])
def test_each_pixel_has_the_interpolated_odds_of_its_own_class(random, grid):
    labels = random.integers(-1, 3, (7, 11))
    odds = random.normal(0, 2, (3, *grid)).astype(np.float32)
    found = known.with_known(labelled(labels), torch.from_numpy(odds))
    expected = np.array(
        [
            [
                interpolated(odds[labels[y, x]], (y + 0.5) * grid[0] / 7 - 0.5, (x + 0.5) * grid[1] / 11 - 0.5)
                for x in range(11)
            ]
            for y in range(7)
        ]
    )
    assert found.known.dtype == np.float32
    drawn = labels >= 0
    np.testing.assert_allclose(found.known[drawn], sigmoid(expected)[drawn], atol=1e-5)
    np.testing.assert_allclose(found.presence, sigmoid(odds.reshape(3, -1).max(1)), atol=1e-5)


def test_a_result_without_classes_knows_nothing():
    found = known.with_known(labelled(np.full((2, 3), -1), ()), torch.zeros(0, 4, 4))
    assert found.presence.shape == (0,)
    assert (found.leave_out(0.3).labels == -1).all()


@pytest.mark.parametrize("times", [1, 2])
def test_pixels_of_one_cell_and_one_label_share_their_odds(times):
    """Cells of 1 x 4 pixels, at their own size and at twice that; no mask is over the last column."""
    cells = cut_cells(MaskProposals.from_masks(np.array([[[True, True, True, False]]]), np.ones(1)))
    labels = np.array([[0, 0, 1, 0]])
    odds = torch.tensor([[[1.0, 3.0, 50.0, -2.0]], [[-50.0, -50.0, 2.0, -50.0]]])
    averaged = np.array([[2.0, 2.0, 2.0, -2.0]])
    repeat = np.ones((times, times), int)
    odds = torch.from_numpy(np.kron(odds.numpy(), repeat).astype(np.float32))
    found = known.with_known(labelled(np.kron(labels, repeat), ("a", "b")), odds, cells=cells)
    np.testing.assert_allclose(found.known, sigmoid(np.kron(averaged, repeat)), atol=1e-5)


def test_cells_without_masks_change_nothing(random):
    labels = random.integers(-1, 2, (5, 6))
    odds = torch.from_numpy(random.normal(0, 2, (2, 3, 3)).astype(np.float32))
    none = cut_cells(MaskProposals.from_masks(np.zeros((0, 5, 6), bool), np.zeros(0)))
    alone, among = (known.with_known(labelled(labels, ("a", "b")), odds, cells=cells) for cells in (None, none))
    np.testing.assert_array_equal(alone.known, among.known)


@pytest.mark.parametrize("size", [(2, 3), (4, 6), (1, 3), (5, 2)])
def test_odds_of_cells_reach_their_pixels_at_any_size(random, size):
    index = np.array([[0, 1, 1], [2, 1, 0]], np.int32)
    odds = random.normal(0, 2, (3, 2)).astype(np.float32)
    labels = random.integers(0, 2, size)
    found = known.with_known_of_cells(labelled(labels, ("a", "b")), odds, index)
    for y, x in np.ndindex(*size):
        cell = index[y * 2 // size[0], x * 3 // size[1]]
        assert np.isclose(found.known[y, x], sigmoid(odds[cell, labels[y, x]]), atol=1e-6)
