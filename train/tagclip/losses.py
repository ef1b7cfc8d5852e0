"""TagCLIP's losses on masks and on the trusty map: those of the published code, and those of the paper (Li et al.).

They differ (docs/training.md). "code": focal and Dice loss of the classes' masks, and focal loss of the trusty map,
whose target is 1 where a class is unseen. "paper": Dice loss of the trusty map M_A, one minus the model's trusty
probability, whose target is 1 where a class is seen and 0 elsewhere (equations 9 and 10), and a class loss
(equation 11). The paper tells of the class loss only its kind, binary cross entropy, and the published code has none.
Here it is the binary cross entropy of every class's mask at every pixel, for which the published model needs no further
layer; it is normalised like the focal loss and has weight 1.

ZegCLIP (Zhou et al., CVPR 2023) has the code's losses without the trusty map.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import reduce
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops import sigmoid_focal_loss

from eval.datasets.base import IGNORE
from ovseg_demo.methods.tagclip.decoder import MaskLogits
from ovseg_demo.methods.tagclip.scores import enlarge
from train.common.losses import dice_loss

LossForm = Literal["code", "paper"]

UNSEEN = -3
"""The label of pixels of a class that the decoder is not prompted with, because it counts as unseen."""

_ALPHA, _GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss and their weights.

    Attributes:
        form: "code" for the losses of the published code, "paper" for those of the paper.
        masks: weight of the focal loss of the masks.
        dice: weight of the Dice loss of the masks.
        trusty: weight of the loss of the trusty map.
        unlabelled: whether pixels with IGNORE are negatives of all classes and of the trusty map, as published;
            otherwise they are not counted.
    """

    form: LossForm = "code"
    masks: float = 20.0
    dice: float = 1.0
    trusty: float = 10.0
    unlabelled: bool = True


def tagclip_losses(logits: MaskLogits, labels: Tensor, unseen: Tensor, terms: LossTerms) -> dict[str, Tensor]:
    """The weighted losses, float32 scalars: "masks", "dice", with the paper "classes", with a trusty token "trusty".

    Each is the mean over pixels, and for Dice the one number, of every mask, summed over masks and images and divided
    by how many classes the images show: counted image by image, averaged over all processes, and at least 1.

    Args:
        logits: (B, C, h, w) and (B, h, w); they are enlarged to the size of the labels.
        labels: int64 (B, H, W), from 0 to C - 1; negative where a pixel is of none of these classes, and IGNORE where
            it has no label.
        unseen: bool (B, H, W), whether the class of a pixel counts as unseen, whatever its label.
        terms: weights and form of the losses.
    """
    counted = torch.ones_like(unseen) if terms.unlabelled else labels != IGNORE
    trusty = [None] * len(labels) if logits.trusty is None else logits.trusty.float()[:, None]
    with torch.autocast(labels.device.type, enabled=False):
        # The masks of an image may take a gigabyte: those of one image exist at a time, in the backward pass too.
        images = zip(logits.classes.float(), trusty, labels, unseen, counted, strict=True)
        sums: list[Any] = [checkpoint(_image_sums, *image, terms, use_reentrant=False) for image in images]
    present = torch.tensor(float(sum((image.unique() >= 0).sum() for image in labels)), device=labels.device)
    count = torch.as_tensor(reduce(present, "mean")).clamp(min=1)
    return {name: torch.stack([image[name] for image in sums]).sum() / count for name in sums[0]}


def _image_sums(
    classes: Tensor, trusty: Tensor | None, labels: Tensor, unseen: Tensor, counted: Tensor, terms: LossTerms
) -> dict[str, Tensor]:
    """The losses summed over the masks of one image: mask logits (C, h, w), trusty logits (1, h, w), pixels (H, W)."""
    masks = enlarge(classes, labels.shape)
    truth = (labels == torch.arange(len(masks), device=labels.device)[:, None, None]).to(masks)
    present = truth.flatten(1).any(1)
    losses = {
        "masks": terms.masks * _mean(sigmoid_focal_loss(masks, truth, _ALPHA, _GAMMA), counted),
        "dice": terms.dice * _dice(masks[present].sigmoid(), truth[present], counted),
    }
    if terms.form == "paper":
        losses["classes"] = _mean(F.binary_cross_entropy_with_logits(masks, truth, reduction="none"), counted)
    if trusty is not None:
        trusty = enlarge(trusty, labels.shape)
        if terms.form == "paper":
            known = ((labels >= 0) & ~unseen).to(trusty)[None]
            loss = _dice((-trusty).sigmoid(), known, counted)
        else:
            loss = _mean(sigmoid_focal_loss(trusty, unseen.to(trusty)[None], _ALPHA, _GAMMA), counted)
        losses["trusty"] = terms.trusty * loss
    return losses


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of (K, H, W) over the pixels that count, summed over K; 0 where none does."""
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def _dice(masks: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """The Dice loss of masks (K, H, W) in [0, 1] over the pixels that count, summed over K."""
    return dice_loss((masks * counted).flatten(1), (truth * counted).flatten(1)).sum()
