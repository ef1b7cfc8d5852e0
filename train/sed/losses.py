"""SED's losses: binary cross entropy of every class at every pixel, for the result and for earlier logits.

Xie et al., "SED: A Simple Encoder-Decoder for Open-Vocabulary Semantic Segmentation", CVPR 2024, section 3.4, and the
published training code.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from eval.datasets.base import IGNORE

IgnoreRule = Literal["zeros", "masked"]
"""How pixels with the label IGNORE count: "zeros", as negatives of all classes, as published; "masked", not at all."""

_NAMES = ("before stage 1", "after stage 1", "after stage 2", "result")


def sed_losses(logits: Sequence[Tensor], labels: Tensor, ignore: IgnoreRule = "zeros") -> dict[str, Tensor]:
    """The four losses, each a float32 scalar of weight 1: a mean over pixels and classes, at the labels' resolution.

    Args:
        logits: logits of `Decoder` before its stages and after each stage, (B, T, h, w); the last are the result.
        labels: int64 (B, H, W), from 0 to T - 1; negative where a pixel is of no class, IGNORE where it has no label.
        ignore: how pixels without a label count, see `IgnoreRule`.
    """
    with torch.autocast(labels.device.type, enabled=False):
        return {
            name: mean_cross_entropy(stage.float(), labels, ignore) for name, stage in zip(_NAMES, logits, strict=True)
        }


def mean_cross_entropy(logits: Tensor, labels: Tensor, ignore: IgnoreRule = "zeros") -> Tensor:
    """The binary cross entropy, a mean over the pixels that count and over all classes; 0 where no pixel counts.

    In full resolution the logits of an image may take half a gigabyte. The full logits of only one image exist at a
    time; the backward pass computes them again.

    Args:
        logits: (B, T, h, w), which are enlarged bilinearly.
        labels: int64 (B, H, W), see `sed_losses`.
        ignore: how pixels without a label count, see `IgnoreRule`.
    """
    counted = labels != IGNORE if ignore == "masked" else torch.ones_like(labels, dtype=torch.bool)
    images = zip(logits, labels, counted, strict=True)
    summed: list[Any] = [checkpoint(_summed, *image, use_reentrant=False) for image in images]
    return torch.stack(summed).sum() / (counted.sum() * logits.shape[1]).clamp(min=1)


def _summed(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """The sum over classes and counted pixels of one image: logits (T, h, w), labels and counted (H, W)."""
    fine = F.interpolate(logits[None], labels.shape, mode="bilinear", align_corners=False)[0]
    # The cross entropy with the target y is softplus(x) - x y, and y is 1 for one class of a pixel at most.
    own = fine.gather(0, labels.clamp(min=0)[None])[0] * (labels >= 0)
    return ((F.softplus(fine).sum(0) - own) * counted).sum()
