"""Bipartite matching of queries and segments (DETR, Carion et al. 2020, section 3.1; MaskFormer, Cheng et al. 2021,
section 3.1): the assignment with the least cost."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from train.common.loss_terms import ALPHA, GAMMA, MASKFORMER, LossTerms
from train.common.losses import pairwise_dice_loss


@torch.no_grad()
def match_queries(
    logits: Tensor, masks: Tensor, classes: Tensor, segments: Tensor, terms: LossTerms = MASKFORMER
) -> tuple[Tensor, Tensor]:
    """The matched queries and their segments, two int64 (M,), M being the smaller of Q and N.

    Args:
        logits: class logits, (Q, K + 1), "no object" last.
        masks: mask logits, (Q, h, w), or (Q, P) at points.
        classes: the segments' classes, int64 (N,).
        segments: the segments' masks at the same places, (N, h, w) or (N, P), bool or from 0 to 1.
        terms: the terms of the cost.
    """
    costs = matching_cost(logits, masks, classes, segments, terms)
    queries, targets = linear_sum_assignment(costs.nan_to_num().cpu())  # `fit` reports losses that are not finite
    return torch.from_numpy(queries), torch.from_numpy(targets)


def matching_cost(
    logits: Tensor, masks: Tensor, classes: Tensor, segments: Tensor, terms: LossTerms = MASKFORMER
) -> Tensor:
    """The cost of each pair, (Q, N): mask loss and Dice loss less the class probability, each with its weight.

    Arguments as in `match_queries`.
    """
    predicted, wanted = masks.flatten(1), segments.flatten(1).to(masks)
    probabilities = logits.softmax(1)[:, classes]
    mask_cost = focal_cost if terms.mask_term == "focal" else cross_entropy_cost
    return (
        terms.masks * mask_cost(predicted, wanted)
        - terms.classes * probabilities
        + terms.dice * pairwise_dice_loss(predicted.sigmoid(), wanted)
    )


def focal_cost(predicted: Tensor, wanted: Tensor) -> Tensor:
    """The focal loss (Lin et al. 2017, equation 5) of each pair, (Q, N), a mean over pixels.

    Args:
        predicted: mask logits over P pixels, (Q, P).
        wanted: masks, (N, P), from 0 to 1.
    """
    probability = predicted.sigmoid()
    inside = ALPHA * (1 - probability) ** GAMMA * F.softplus(-predicted)
    outside = (1 - ALPHA) * probability**GAMMA * F.softplus(predicted)
    return _mean_over_pixels(inside, outside, wanted)


def cross_entropy_cost(predicted: Tensor, wanted: Tensor) -> Tensor:
    """The binary cross entropy of each pair, (Q, N), a mean over pixels. Arguments as in `focal_cost`."""
    return _mean_over_pixels(F.softplus(-predicted), F.softplus(predicted), wanted)


def _mean_over_pixels(inside: Tensor, outside: Tensor, wanted: Tensor) -> Tensor:
    """The mean loss of each pair, (Q, N), of what a pixel costs inside and outside of a segment, (Q, P) each."""
    return (inside @ wanted.T + outside @ (1 - wanted).T) / wanted.shape[1]
