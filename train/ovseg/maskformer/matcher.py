"""Bipartite matching of queries and segments (DETR, Carion et al. 2020, section 3.1; MaskFormer, Cheng et al. 2021,
section 3.1): the assignment with the least cost."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from train.common.losses import pairwise_dice_loss
from train.ovseg.maskformer.loss_weights import ALPHA, CLASS_WEIGHT, DICE_WEIGHT, GAMMA, MASK_WEIGHT


@torch.no_grad()
def match_queries(logits: Tensor, masks: Tensor, classes: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """The matched queries and their segments, two int64 (M,), M being the smaller of Q and N.

    Args:
        logits: class logits, (Q, K + 1), "no object" last.
        masks: mask logits, (Q, h, w).
        classes: the segments' classes, int64 (N,).
        segments: the segments' masks, bool (N, h, w).
    """
    costs = matching_cost(logits, masks, classes, segments).nan_to_num()  # `fit` reports losses that are not finite
    queries, targets = linear_sum_assignment(costs.cpu())
    return torch.from_numpy(queries), torch.from_numpy(targets)


def matching_cost(logits: Tensor, masks: Tensor, classes: Tensor, segments: Tensor) -> Tensor:
    """The cost of each pair, (Q, N): 20 * focal - class probability + Dice. Arguments as in `match_queries`."""
    predicted, wanted = masks.flatten(1), segments.flatten(1).to(masks)
    probabilities = logits.softmax(1)[:, classes]
    return (
        MASK_WEIGHT * focal_cost(predicted, wanted)
        - CLASS_WEIGHT * probabilities
        + DICE_WEIGHT * pairwise_dice_loss(predicted.sigmoid(), wanted)
    )


def focal_cost(predicted: Tensor, wanted: Tensor) -> Tensor:
    """The focal loss (Lin et al. 2017, equation 5) of each pair, (Q, N), a mean over pixels.

    Args:
        predicted: mask logits over P pixels, (Q, P).
        wanted: masks, (N, P), 0 or 1.
    """
    probability = predicted.sigmoid()
    inside = ALPHA * (1 - probability) ** GAMMA * F.softplus(-predicted)
    outside = (1 - ALPHA) * probability**GAMMA * F.softplus(predicted)
    return (inside @ wanted.T + outside @ (1 - wanted).T) / predicted.shape[1]
