"""From mask logits to a score of every class at every pixel: TagCLIP's inference.

As released: the probabilities of seen classes are lowered by 0.1; then those of seen classes are multiplied by how
trusty a pixel is, and those of unseen ones by how untrusty. The paper's equation 12 says the same of the products, if
its two misprints are read as its text has them, and nothing of the 0.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.decoder import MaskLogits
from ovseg_demo.methods.tagclip.windows import EncodedPhoto

SEEN_PENALTY = 0.1

_VALUES = 2**27
"""Scores of a photo at most, 512 MB; where there would be more, their grid is coarser than the photo as it was read."""

_STEPS = (1, 2, 4, 8)
_CLASSES_AT_ONCE = 8  # what they take at full resolution stays in the processor's cache


@dataclass(frozen=True)
class ScoreRule:
    """How a class's mask probability becomes its score.

    Attributes:
        seen: of each of C classes, whether it counts as seen.
        seen_penalty: taken off the probabilities of seen classes.
        trusty: whether scores are weighted by the trusty map.
    """

    seen: tuple[bool, ...]
    seen_penalty: float = 0.0
    trusty: bool = True


def class_scores(windows: EncodedPhoto, logits: MaskLogits, rule: ScoreRule, step: int | None = None) -> Tensor:
    """Of each class, float32 (C, H', W'), at least -`rule.seen_penalty` and at most 1; windows are averaged.

    Args:
        windows: N of a photo.
        logits: of each, (N, C, h, w).
        step: pixels of the photo as it was read between the scores, a power of two; None takes the least for which the
            memory for all classes is bounded.
    """
    classes = logits.classes.shape[1]
    step = step or _affordable(windows, classes)
    total, places = _canvas(windows, classes, step, logits.classes)
    for index, where in enumerate(places):
        size = total[0][where].shape
        unseen = enlarge(logits.trusty[index, None], size)[0].sigmoid_() if rule.trusty else None
        for first in range(0, classes, _CLASSES_AT_ONCE):
            some = slice(first, first + _CLASSES_AT_ONCE)
            found = enlarge(logits.classes[index, some], size).sigmoid_()
            for values, seen in zip(found, rule.seen[some], strict=True):
                if seen:
                    values.sub_(rule.seen_penalty)
                if unseen is not None:
                    values.mul_(1 - unseen if seen else unseen)
            total[(some, *where)] += found
    return _averaged(total, places)


def trusty_map(windows: EncodedPhoto, logits: MaskLogits, step: int) -> Tensor:
    """The probability that a place belongs to an unseen class, float32 (1, H', W'); `logits.trusty` must be there."""
    unseen = MaskLogits(logits.trusty[:, None], None)
    return class_scores(windows, unseen, ScoreRule(seen=(False,), trusty=False), step)


def _affordable(windows: EncodedPhoto, classes: int) -> int:
    pixels = [max(origin[axis] for origin in windows.origins) + windows.side[axis] for axis in (0, 1)]
    values = classes * pixels[0] * pixels[1]
    return next((step for step in _STEPS if values <= _VALUES * step**2), _STEPS[-1])


def _canvas(windows: EncodedPhoto, classes: int, step: int, like: Tensor) -> tuple[Tensor, list[tuple[slice, slice]]]:
    """Zeros (C, H', W'), and where each window lies in them; in steps, to half a step."""
    height, width = (max(1, length // step) for length in windows.side)
    places = [
        (slice(top // step, top // step + height), slice(left // step, left // step + width))
        for top, left in windows.origins
    ]
    size = [max(where[axis].stop for where in places) for axis in (0, 1)]
    return like.new_zeros(classes, *size), places


def _averaged(total: Tensor, places: list[tuple[slice, slice]]) -> Tensor:
    """What has been added up over windows, by how many of them lie over each place; in place."""
    if len(places) == 1:
        return total
    count = total.new_zeros(total.shape[1:])
    for where in places:
        count[where] += 1
    return total.div_(count)


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (C, h, w) at another size (H, W), bilinearly."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]
