"""From mask logits to a score of every class at every pixel: TagCLIP's inference.

The released code lowers the mask probabilities of seen classes by 0.1, a penalty that the paper does not mention. Then
it weights with the trusty map u, the probability that a pixel belongs to an unseen class: probabilities of seen classes
are multiplied by 1 - u, probabilities of unseen classes by u. This is the paper's equation 12 with its two misprints
corrected as its text demands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.decoder import MaskLogits
from ovseg_demo.methods.tagclip.windows import WindowedPhoto

SEEN_PENALTY = 0.1
"""Subtracted from the mask probabilities of seen classes by the released code."""

_MAX_SCORES = 2**27
"""Most scores of a photo, 512 MB; a coarser grid is chosen where the pixels of the resized photo would have more."""

_STEPS = (1, 2, 4, 8)
_CLASSES_AT_ONCE = 8  # so few that their maps at full resolution stay in the processor's cache


@dataclass(frozen=True)
class ScoreRule:
    """How the score of a class follows from its mask probability.

    Attributes:
        seen: whether each of the C classes counts as seen in training.
        seen_penalty: subtracted from the mask probabilities of seen classes, 0 to 1.
        trusty_weighting: whether scores are weighted by the trusty map.
    """

    seen: tuple[bool, ...]
    seen_penalty: float = 0.0
    trusty_weighting: bool = True


def class_scores(windows: WindowedPhoto, logits: MaskLogits, rule: ScoreRule, step: int | None = None) -> Tensor:
    """Scores of every class over a photo, averaged where windows overlap.

    Args:
        windows: the N windows of the photo.
        logits: mask logits of the windows, (N, C, h, w).
        rule: how a score follows from a mask probability.
        step: distance between scores in pixels of the resized photo, a power of two; None takes the least one that
            bounds the memory for all classes.

    Returns:
        float32 (C, H', W'), at least -`rule.seen_penalty` and at most 1.

    Raises:
        ValueError: when the rule wants a trusty map and the logits have none.
    """
    classes = logits.classes.shape[1]
    step = step or _smallest_step(windows, classes)
    total, areas = _canvas(windows, classes, step, logits.classes)
    trusty = _trusty_logits(logits) if rule.trusty_weighting else None
    for index, area in enumerate(areas):
        size = total[0][area].shape
        unseen = None if trusty is None else enlarge(trusty[index, None], size)[0].sigmoid_()
        for first in range(0, classes, _CLASSES_AT_ONCE):
            group = slice(first, first + _CLASSES_AT_ONCE)
            probabilities = enlarge(logits.classes[index, group], size).sigmoid_()
            for probability, seen in zip(probabilities, rule.seen[group], strict=True):
                if seen:
                    probability.sub_(rule.seen_penalty)
                if unseen is not None:
                    probability.mul_(1 - unseen if seen else unseen)
            total[(group, *area)] += probabilities
    return _averaged(total, areas)


def trusty_map(windows: WindowedPhoto, logits: MaskLogits, step: int) -> Tensor:
    """The probability that a pixel belongs to an unseen class.

    Args:
        windows: the N windows of the photo.
        logits: mask logits of the windows.
        step: as in `class_scores`.

    Returns:
        float32 (1, H', W'), 0 to 1.

    Raises:
        ValueError: when the logits have no trusty map.
    """
    unseen = MaskLogits(_trusty_logits(logits)[:, None], None)
    return class_scores(windows, unseen, ScoreRule(seen=(False,), trusty_weighting=False), step)


def _trusty_logits(logits: MaskLogits) -> Tensor:
    if logits.trusty is None:
        raise ValueError("The model has no trusty token.")
    return logits.trusty


def _smallest_step(windows: WindowedPhoto, classes: int) -> int:
    pixels = [max(origin[axis] for origin in windows.origins) + windows.window_size[axis] for axis in (0, 1)]
    values = classes * pixels[0] * pixels[1]
    return next((step for step in _STEPS if values <= _MAX_SCORES * step**2), _STEPS[-1])


def _canvas(windows: WindowedPhoto, classes: int, step: int, like: Tensor) -> tuple[Tensor, list[tuple[slice, slice]]]:
    """Zeros (C, H', W'), and the rows and columns of each window in them, rounded down to whole steps."""
    height, width = (max(1, length // step) for length in windows.window_size)
    areas = [
        (slice(top // step, top // step + height), slice(left // step, left // step + width))
        for top, left in windows.origins
    ]
    size = [max(area[axis].stop for area in areas) for axis in (0, 1)]
    return like.new_zeros(classes, *size), areas


def _averaged(total: Tensor, areas: list[tuple[slice, slice]]) -> Tensor:
    """The sum over windows divided, in place, by the number of windows at each position."""
    if len(areas) == 1:
        return total
    count = total.new_zeros(total.shape[1:])
    for area in areas:
        count[area] += 1
    return total.div_(count)


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (C, h, w), interpolated bilinearly to a size (H, W)."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]
