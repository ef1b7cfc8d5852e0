"""SegCLIP's superpixel loss: patches of one superpixel should belong to one region (Luo et al. 2023, section 2.4)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LossForm = Literal["code", "paper"]
"""Whose superpixel loss: the released code's or the paper's, which is as many times larger as there are regions."""


def superpixel_loss(assignment: Tensor, superpixels: Tensor, form: LossForm = "code") -> Tensor:
    """The symmetric KL divergence between the regions of patches and the mean of their superpixels, a scalar.

    As in the released code, the softmax is taken over assignments, which are 0 or 1 already. The code divides the sum
    by 2 B L R, the paper's equation 6 by 2 L for each image.

    Args:
        assignment: 1 at the region of each patch, otherwise 0, with the gradient of straight-through, float (B, R, L);
            see `Grouping.hard`.
        superpixels: the label of the superpixel of each patch, integers (B, L), which count within an image.
        form: whose divisor.
    """
    with torch.autocast(assignment.device.type, enabled=False):  # a mean in bfloat16 has few digits
        of_patches = assignment.float().mT
        together = (superpixels[:, :, None] == superpixels[:, None]).to(of_patches)
        mean = together @ of_patches / together.sum(2, keepdim=True)
        logs = torch.stack([of_patches.log_softmax(2), mean.log_softmax(2)])
        divergences = F.kl_div(logs, logs.flip(0), reduction="sum", log_target=True)
    return divergences / (2 * (of_patches.numel() if form == "code" else superpixels.numel()))
