"""Points of masks: drawn evenly, or with preference for where a mask is least certain, and what masks are there.

A point is (x, y), each from 0 to 1: (0, 0) is the upper left corner of the image, whatever the size of a mask.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from train.common.loss_terms import PointSampling


def draw_even_points(count: int, sampling: PointSampling, device: torch.device) -> Tensor:
    """Evenly distributed points, (count, P, 2), from torch's global generator.

    Args:
        count: the number of masks; each gets P points of its own.
        sampling: tells P.
        device: device of the points.
    """
    return torch.rand(count, sampling.points, 2, device=device)


@torch.no_grad()
def draw_uncertain_points(masks: Tensor, sampling: PointSampling) -> Tensor:
    """Points of each mask, (M, P, 2), most of them where its logit is closest to 0 (PointRend, section 3.1).

    Args:
        masks: mask logits, (M, h, w).
        sampling: how many points are drawn, and how many of them are the least certain ones.
    """
    count, kept = len(masks), int(sampling.importance * sampling.points)
    drawn = torch.rand(count, int(sampling.oversampling * sampling.points), 2, device=masks.device)
    closest = values_at(masks, drawn).abs().topk(kept, dim=1, largest=False).indices
    uncertain = drawn.gather(1, closest[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, torch.rand(count, sampling.points - kept, 2, device=masks.device)], 1)


def values_at(masks: Tensor, points: Tensor) -> Tensor:
    """What each mask is at its points, between pixels bilinearly, float (M, P).

    Args:
        masks: (M, h, w), logits or masks from 0 to 1. Beyond the centres of the outermost pixels they fall towards 0.
        points: (M, P, 2).
    """
    return F.grid_sample(masks[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]
