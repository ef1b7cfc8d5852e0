"""The decoder with its losses: SED's binary cross entropies, and a cross entropy over the words of a photo."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.sed.decoder import Decoder
from train.common.sampling import Batch

_NAMES = ("before stage 1", "after stage 1", "after stage 2", "result", "choice")
_TINY = 1e-6


class SEDMiniTraining(nn.Module):
    """The four binary cross entropies of SED (Xie et al., CVPR 2024, section 3.4), and the cross entropy of the result.

    All are computed at stride 4, the resolution of the labels. The fifth loss is not SED's: it trains the choice of the
    best word at each place, which the demo makes.

    Args:
        decoder: the decoder that is trained.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `batches.CostMapBatches`, means over its photos."""
        losses = [
            self._losses(*photo)
            for photo in zip(batch["cost"], batch["skips"], batch["targets"], batch["counted"], strict=True)
        ]
        return dict(zip(_NAMES, torch.stack(losses).mean(0), strict=True))

    def _losses(self, cost: Tensor, skips: list[Tensor], targets: Tensor, counted: Tensor) -> Tensor:
        logits = [stage[0] for stage in self.decoder(cost[None], [level[None] for level in skips])]
        binary = [balanced_binary_cross_entropy(stage, targets, counted) for stage in logits]
        return torch.stack([*binary, balanced_class_cross_entropy(logits[-1], targets, counted)])


def balanced_binary_cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """The mean binary cross entropy, places weighted by `inverse_root_frequencies`; 0 where nothing counts.

    Args:
        logits: (T, h, w), interpolated to the size of the targets.
        targets: float (T, H, W), 0 or 1; at most one class of a place is 1.
        counted: bool (T, H, W), whether the target of a class at a place is known.
    """
    fine = F.interpolate(logits[None], targets.shape[1:], mode="bilinear", align_corners=False)[0]
    weights = counted * inverse_root_frequencies(targets)
    losses = F.binary_cross_entropy_with_logits(fine, targets, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=_TINY)


def balanced_class_cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """The mean cross entropy of places with a class, weighted by `inverse_root_frequencies`; 0 without such places.

    Args:
        logits: (T, H, W).
        targets: float (T, H, W), 0 or 1; at most one class of a place is 1.
        counted: bool (T, H, W), whether a class is in the softmax of a place.
    """
    weights = inverse_root_frequencies(targets) * targets.sum(0)
    losses = F.cross_entropy(logits.masked_fill(~counted, -1e4)[None], targets.argmax(0)[None], reduction="none")[0]
    return (losses * weights).sum() / weights.sum().clamp(min=_TINY)


def inverse_root_frequencies(targets: Tensor) -> Tensor:
    """Weights of places, (H, W): one over the square root of the number of places of the same class.

    So small objects weigh more than their share of the area, as in the training of the mini model's dense head.

    Args:
        targets: float (T, H, W), 0 or 1; places where all are 0 are a class of their own.
    """
    masks = torch.cat([targets, 1 - targets.sum(0, keepdim=True)])
    return (masks * masks.sum((1, 2), keepdim=True).clamp(min=1).rsqrt()).sum(0)
