"""MaskFormer's losses (Cheng et al. 2021, section 3.2), with each image's own vocabulary.

Class logits are 100 times cosines with the texts of the vocabulary and, last, with the learned "no object" (OVSeg,
Liang et al. 2023, section 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import reduce
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from train.common.losses import dice_loss
from train.ovseg.maskformer.loss_weights import ALPHA, CLASS_WEIGHT, DICE_WEIGHT, GAMMA, MASK_WEIGHT, VOID_WEIGHT
from train.ovseg.maskformer.matcher import match_queries


@dataclass(frozen=True)
class Segments:
    """The ground truth of an image: one segment for each class in it.

    Attributes:
        classes: int64 (N,), columns of the image's class logits; N may be 0.
        masks: bool (N, H, W), at the size of the image.
    """

    classes: Tensor
    masks: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> "Segments":
        """The segments of labels, int64 (H, W); negative labels belong to no segment."""
        classes = labels.unique()
        classes = classes[classes >= 0]
        return cls(classes, labels == classes[:, None, None])

    def shrunk(self, size: Sequence[int]) -> Tensor:
        """The masks resized by nearest neighbour to `size`, (h, w), bool (N, h, w)."""
        return F.interpolate(self.masks[:, None].byte(), tuple(size), mode="nearest")[:, 0].bool()


def mask_count(segments: Sequence[Segments]) -> Tensor:
    """The divisor of the mask losses, a scalar: the mean number of segments of a process, at least 1.

    Args:
        segments: ground truth of each image of this process.
    """
    count = torch.tensor(float(sum(len(s.classes) for s in segments)), device=segments[0].masks.device)
    return torch.as_tensor(reduce(count, "mean")).clamp(min=1)


def layer_losses(
    logits: Sequence[Tensor], masks: Tensor, segments: Sequence[Segments], count: Tensor
) -> dict[str, Tensor]:
    """The weighted losses of one decoder layer: "classes", "masks" and "dice".

    Args:
        logits: class logits of each of B images, (Q, K + 1) for its K classes and "no object"; K may differ.
        masks: mask logits, (B, Q, h, w).
        segments: ground truth of each image.
        count: divisor of the mask losses, from `mask_count`.
    """
    small = [truth.shrunk(masks.shape[2:]) for truth in segments]
    pairs = [
        match_queries(image_logits, image_masks, truth.classes, small_masks)
        for image_logits, image_masks, truth, small_masks in zip(logits, masks, segments, small, strict=True)
    ]
    predicted = torch.cat([image_masks[queries] for image_masks, (queries, _) in zip(masks, pairs, strict=True)])
    wanted = torch.cat([truth.masks[targets] for truth, (_, targets) in zip(segments, pairs, strict=True)])
    mask_loss, dice_loss = mask_losses(predicted, wanted, count)
    return {
        "classes": CLASS_WEIGHT * class_loss(logits, _wanted_classes(logits, segments, pairs)),
        "masks": MASK_WEIGHT * mask_loss,
        "dice": DICE_WEIGHT * dice_loss,
    }


def class_loss(logits: Sequence[Tensor], classes: Sequence[Tensor]) -> Tensor:
    """Cross entropy over all queries of all images, a mean in which "no object" has weight VOID_WEIGHT.

    Args:
        logits: class logits of each image, (Q, K + 1), "no object" last.
        classes: target class of each query of each image, int64 (Q,).
    """
    losses, weights = [], []
    for image_logits, targets in zip(logits, classes, strict=True):
        losses.append(F.cross_entropy(image_logits, targets, reduction="none"))
        weights.append(torch.where(targets == image_logits.shape[1] - 1, VOID_WEIGHT, 1.0))
    weight = torch.cat(weights)
    return torch.dot(torch.cat(losses), weight) / weight.sum()


def mask_losses(predicted: Tensor, wanted: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss, a mean over pixels, and the Dice loss, each summed over segments and divided by `count`.

    Args:
        predicted: mask logits of the matched queries, (M, h, w), enlarged bilinearly to the size of `wanted`.
        wanted: masks of their segments, bool (M, H, W).
        count: divisor, from `mask_count`.
    """
    scores = F.interpolate(predicted[:, None], wanted.shape[1:], mode="bilinear")[:, 0].flatten(1)
    truth = wanted.flatten(1).to(scores)
    focal = sigmoid_focal_loss(scores, truth, ALPHA, GAMMA).mean(1).sum()
    return focal / count, dice_loss(scores.sigmoid(), truth).sum() / count


def _wanted_classes(
    logits: Sequence[Tensor], segments: Sequence[Segments], pairs: Sequence[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """The target class of each query of each image, int64 (Q,): the class of its segment, or "no object"."""
    wanted = []
    for image_logits, truth, (queries, targets) in zip(logits, segments, pairs, strict=True):
        classes = torch.full((len(image_logits),), image_logits.shape[1] - 1, device=image_logits.device)
        classes[queries] = truth.classes[targets]
        wanted.append(classes)
    return wanted
