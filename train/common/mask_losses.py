"""The losses of a set of masks with classes, with each image's own vocabulary (MaskFormer, Cheng et al. 2021, section
3.2; Mask2Former, Cheng et al. 2022, section 3).

Class logits are scaled cosines with the texts of the vocabulary and, last, with the learned "no object".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import reduce
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from train.common.loss_terms import ALPHA, GAMMA, MASKFORMER, LossTerms, PointSampling
from train.common.losses import dice_loss
from train.common.matcher import match_queries
from train.common.point_sampling import draw_even_points, draw_uncertain_points, values_at


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
    logits: Sequence[Tensor],
    masks: Tensor,
    segments: Sequence[Segments],
    count: Tensor,
    terms: LossTerms = MASKFORMER,
) -> dict[str, Tensor]:
    """The weighted losses of one decoder layer: "classes", "masks" and "dice".

    Args:
        logits: class logits of each of B images, (Q, K + 1) for its K classes and "no object"; K may differ.
        masks: mask logits, (B, Q, h, w).
        segments: ground truth of each image.
        count: divisor of the mask losses, from `mask_count`.
        terms: the terms of the loss and of the matching.
    """
    pairs = [
        _match(image_logits, image_masks, truth, terms)
        for image_logits, image_masks, truth in zip(logits, masks, segments, strict=True)
    ]
    predicted = torch.cat([image_masks[queries] for image_masks, (queries, _) in zip(masks, pairs, strict=True)])
    wanted = torch.cat([truth.masks[targets] for truth, (_, targets) in zip(segments, pairs, strict=True)])
    mask_loss, dice_loss = mask_losses(predicted, wanted, count, terms)
    return {
        "classes": terms.classes * class_loss(logits, _wanted_classes(logits, segments, pairs), terms.void),
        "masks": terms.masks * mask_loss,
        "dice": terms.dice * dice_loss,
    }


def class_loss(logits: Sequence[Tensor], classes: Sequence[Tensor], void: float = MASKFORMER.void) -> Tensor:
    """Cross entropy over all queries of all images, a mean in which "no object" has a weight of its own.

    Args:
        logits: class logits of each image, (Q, K + 1), "no object" last.
        classes: target class of each query of each image, int64 (Q,).
        void: weight of "no object"; that of classes is 1.
    """
    losses, weights = [], []
    for image_logits, targets in zip(logits, classes, strict=True):
        losses.append(F.cross_entropy(image_logits, targets, reduction="none"))
        weights.append(torch.where(targets == image_logits.shape[1] - 1, void, 1.0))
    weight = torch.cat(weights)
    return torch.dot(torch.cat(losses), weight) / weight.sum()


def mask_losses(
    predicted: Tensor, wanted: Tensor, count: Tensor, terms: LossTerms = MASKFORMER
) -> tuple[Tensor, Tensor]:
    """The loss of pixels, a mean over them, and the Dice loss, each summed over segments and divided by `count`.

    Args:
        predicted: mask logits of the matched queries, (M, h, w).
        wanted: masks of their segments, bool (M, H, W).
        count: divisor, from `mask_count`.
        terms: tells the loss of pixels, and at which points of the masks it is taken.
    """
    scores, truth = _compared(predicted, wanted, terms.sampling)
    if terms.mask_term == "focal":
        pixels = sigmoid_focal_loss(scores, truth, ALPHA, GAMMA)
    else:
        pixels = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    return pixels.mean(1).sum() / count, dice_loss(scores.sigmoid(), truth).sum() / count


def _match(logits: Tensor, masks: Tensor, truth: Segments, terms: LossTerms) -> tuple[Tensor, Tensor]:
    """The matched queries and segments of one image, as `match_queries` gives them.

    Masks are compared at points that all of them share, or else at the size of the predicted masks.
    """
    if terms.sampling is None:
        places, wanted = masks, truth.shrunk(masks.shape[1:])
    else:
        points = draw_even_points(1, terms.sampling, masks.device)
        places = values_at(masks.detach(), points.expand(len(masks), -1, -1))
        wanted = values_at(truth.masks.to(masks.dtype), points.expand(len(truth.masks), -1, -1))
    return match_queries(logits, places, truth.classes, wanted, terms)


def _compared(predicted: Tensor, wanted: Tensor, sampling: PointSampling | None) -> tuple[Tensor, Tensor]:
    """Logits and targets of each mask, two (M, P): at points, or at all pixels of `wanted`, enlarged bilinearly."""
    if sampling is None:
        scores = F.interpolate(predicted[:, None], wanted.shape[1:], mode="bilinear")[:, 0].flatten(1)
        return scores, wanted.flatten(1).to(scores)
    points = draw_uncertain_points(predicted, sampling)
    return values_at(predicted, points), values_at(wanted.to(predicted.dtype), points)


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
