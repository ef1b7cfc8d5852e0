"""The Dice loss (Milletari et al. 2016, "V-Net"), smoothed by 1 as in MaskFormer (Cheng et al. 2021).

Of probabilities p and targets t of the same pixels it is 1 - (2 Σ p t + 1) / (Σ p + Σ t + 1).
"""

from torch import Tensor


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The Dice loss of each mask with the target of the same row, (M,), each in [0, 1).

    Args:
        probabilities: (M, P) over P pixels, in [0, 1].
        targets: (M, P), 0 or 1.
    """
    return _dice(intersections=(probabilities * targets).sum(1), sizes=probabilities.sum(1) + targets.sum(1))


def pairwise_dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The Dice loss of each of Q masks with each of N targets, (Q, N), each in [0, 1).

    Args:
        probabilities: (Q, P) over P pixels, in [0, 1].
        targets: (N, P), 0 or 1.
    """
    return _dice(intersections=probabilities @ targets.T, sizes=probabilities.sum(1)[:, None] + targets.sum(1))


def _dice(intersections: Tensor, sizes: Tensor) -> Tensor:
    return 1 - (2 * intersections + 1) / (sizes + 1)
