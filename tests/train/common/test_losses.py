"""The Dice loss by hand, of equal rows and of all pairs."""

import pytest
import torch

from train.common.losses import dice_loss, pairwise_dice_loss

PROBABILITIES = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
TARGETS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def test_dice_loss_of_equal_rows():
    assert dice_loss(PROBABILITIES, TARGETS).tolist() == pytest.approx([1 - (2 * 1.5 + 1) / (1.5 + 2 + 1), 0])


def test_the_diagonal_of_all_pairs_is_that_of_equal_rows():
    every = pairwise_dice_loss(PROBABILITIES, TARGETS)
    assert every.diagonal().tolist() == pytest.approx(dice_loss(PROBABILITIES, TARGETS).tolist())
    assert every[0, 1].item() == pytest.approx(1 - 1 / (1.5 + 1))
    assert pairwise_dice_loss(PROBABILITIES, TARGETS[:1]).shape == (2, 1)
