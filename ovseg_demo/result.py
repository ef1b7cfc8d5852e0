"""The one result type: what a method returns and all that drawing, export and evaluation read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

UNLABELLED = -1
"""Label of pixels without a class."""
TOP = 5
"""Most classes that a result keeps for every pixel."""
_ROWS = 1024
_BLOCK = {"cpu": 2**20}
"""Scores that are interpolated at once, by device: on a CPU so few that they stay in its cache."""
_BLOCK_ELSEWHERE = 2**26


@dataclass(frozen=True)
class ClassSummary:
    """One class of a result: its share of the image, 0 to 1, and the mean confidence of its pixels, 0 to 1."""

    index: int
    name: str
    pixels: int
    share: float
    confidence: float


@dataclass(frozen=True)
class Evidence:
    """Heat maps by which a method shows how it decided, all of one step.

    Attributes:
        title: the step, for people.
        maps: float16 (K, h, w), at any resolution, over the whole image.
        classes: the class of each map; None for maps that belong to the image and to no class.
        limits: the values drawn darkest and brightest; None takes the least and the greatest value of each map.
    """

    title: str
    maps: np.ndarray
    classes: tuple[int, ...] | None
    limits: tuple[float, float] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the maps in memory."""
        return self.maps.nbytes


@dataclass(frozen=True)
class RegionMap:
    """Regions that a method has formed before it names them, as it shows how it decided.

    Attributes:
        title: the step, for people.
        regions: the region at each position, uint8 (h, w), at any resolution, over the whole image.
        captions: what the method says of each region, for people; "" for a region without a position.
    """

    title: str
    regions: np.ndarray
    captions: tuple[str, ...]


class SampledScores(Protocol):
    """Scores of C classes at every pixel of an image, computed for the pixels that are requested."""

    classes: int
    device: torch.device

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """The scores of P pixels, by their row and column, int64 (P,): float32 (C, P), not negative."""
        ...


class InterpolatedScores:
    """A map of scores, interpolated bilinearly to an image.

    Args:
        class_scores: float32 (C, h, w), at any resolution.
        size: (H, W) of the image.
    """

    def __init__(self, class_scores: Tensor, size: tuple[int, int]) -> None:
        self._class_scores, self._size = class_scores, size
        self.classes = len(class_scores)
        self.device = class_scores.device

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """The scores of P pixels, by their row and column, int64 (P,): float32 (C, P)."""
        height, width = self._size
        points = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], 1)
        grid = torch.from_numpy(points).to(self._class_scores)[None, None]
        return F.grid_sample(self._class_scores[None], grid, padding_mode="border", align_corners=False)[0, :, 0]


def nearest(new: int, old: int) -> np.ndarray:
    """The place, of `old` in a row, that each of `new` places shows in a resize by nearest neighbour, int64 (new,)."""
    return np.arange(new) * old // new


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A plane (H, W), of labels for example, at another size, a height and a width in pixels, by nearest neighbour."""
    rows, columns = (nearest(new, old) for new, old in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


@dataclass(frozen=True)
class Choice:
    """The value of an option that was left to the method, and one sentence on why it was chosen."""

    value: float
    reason: str


@dataclass(frozen=True)
class Segmentation:
    """A label for every pixel of an image of H x W pixels.

    Attributes:
        names: the classes; labels index them.
        labels: int32 (H, W), UNLABELLED (-1) where no class was assigned.
        scores: float32 (H, W) in [0, 1], the confidence in the label; 0 where unlabelled.
        top_classes: int32 (K, H, W), the K <= TOP best classes of each pixel, best first. Kept instead of all C
            scores because (C, H, W) is a gigabyte for 847 classes.
        top_scores: float32 (K, H, W) in [0, 1], their scores; 0 where a pixel has no scores.
        chosen: the values of the options that were left to the method, by the name of the option.
        timings: seconds by stage; 0 for a stage answered from the cache.
        notes: sentences a person should read.
        evidence: the steps of the decision, in order; a class that a step has dropped is in none after it.
        known: float32 (H, W) in [0, 1], the probability that a pixel shows the class of its label rather than something
            that was not asked for; None where the method does not tell, and once pixels were left out.
        presence: float32 (C,) in [0, 1], the probability that each class is in the image at all; None where the method
            does not tell.
        independent: whether each score is a probability by itself, as of a sigmoid, and not a share among the classes.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    top_classes: np.ndarray
    top_scores: np.ndarray
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    evidence: tuple[Evidence | RegionMap, ...] = ()
    known: np.ndarray | None = None
    presence: np.ndarray | None = None
    independent: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.labels.shape
        return height, width

    @classmethod
    def from_scores(
        cls,
        names: tuple[str, ...],
        class_scores: "Tensor | SampledScores",
        size: tuple[int, int],
        independent: bool = False,
    ) -> "Segmentation":
        """The best class of each pixel of an image of size (H, W); see `filled`."""
        kept = min(TOP, len(names))
        labels, scores = np.full(size, UNLABELLED, np.int32), np.zeros(size, np.float32)
        best, best_scores = np.zeros((kept, *size), np.int32), np.zeros((kept, *size), np.float32)
        return cls(names, labels, scores, best, best_scores).filled(class_scores, np.ones(size, bool), independent)

    def filled(
        self, class_scores: "Tensor | SampledScores", where: np.ndarray, independent: bool = False
    ) -> "Segmentation":
        """The same result with some pixels labelled anew; the result must have its `top_classes`.

        Args:
            class_scores: float32 (C, h, w), not negative, at any resolution; they are interpolated bilinearly, a block
                of pixels at a time. Or an object that computes the scores of such a block. The confidence of a pixel is
                the score of its class as a share of the sum over all classes. Pixels where all scores are 0 stay
                unlabelled.
            where: bool (H, W), the pixels that are labelled anew.
            independent: whether each score is a probability by itself, as of a sigmoid. The score of its class is then
                the confidence of a pixel.
        """
        labels, scores, best, best_scores = (
            plane.copy() for plane in (self.labels, self.scores, self.top_classes, self.top_scores)
        )
        source = InterpolatedScores(class_scores, self.size) if isinstance(class_scores, Tensor) else class_scores
        flat, kept = np.flatnonzero(where), len(best)
        step = max(1, _BLOCK.get(source.device.type, _BLOCK_ELSEWHERE) // max(1, source.classes))
        for start in range(0, len(flat) if kept else 0, step):
            rows, columns = np.divmod(flat[start : start + step], self.size[1])
            sampled = source.sample(rows, columns)
            values, classes = sampled.topk(kept, 0)
            shares = values if independent else values / sampled.sum(0).clamp(min=torch.finfo(sampled.dtype).tiny)
            drawn = values[0] > 0
            labels[rows, columns] = torch.where(drawn, classes[0], UNLABELLED).cpu()
            scores[rows, columns] = torch.where(drawn, shares[0], 0).cpu()
            best[:, rows, columns], best_scores[:, rows, columns] = classes.cpu(), shares.cpu()
        return replace(
            self, labels=labels, scores=scores, top_classes=best, top_scores=best_scores, independent=independent
        )

    def leave_out(self, minimum: float) -> "Segmentation":
        """The same result without the labels of pixels that show none of the classes.

        Confidences that compare the classes with each other become those among everything that a pixel may show.

        Args:
            minimum: a pixel of a smaller `known` becomes unlabelled; 0 to 1.

        A result without `known` stays as it is.
        """
        if self.known is None:
            return self
        kept = self.known >= minimum
        scores, top_scores = self.scores, self.top_scores
        if not self.independent:
            scores, top_scores = scores * self.known, top_scores * self.known
        return replace(
            self,
            labels=np.where(kept, self.labels, UNLABELLED),
            scores=np.where(kept, scores, 0),
            top_scores=top_scores,
            known=None,
        )

    def in_vocabulary(self, names: tuple[str, ...], indices: Sequence[int]) -> "Segmentation":
        """The same result in a larger vocabulary, whose further classes have no pixel.

        Args:
            names: all classes of the larger vocabulary.
            indices: the index in `names` of each class of this result; further indices are not used.
        """
        table = np.array([*indices[: len(self.names)], UNLABELLED], np.int32)  # UNLABELLED picks the last entry
        presence = None
        if self.presence is not None:
            presence = np.zeros(len(names), np.float32)
            presence[table[:-1]] = self.presence
        return replace(
            self, names=names, labels=table[self.labels], top_classes=table[self.top_classes], presence=presence
        )

    def mask(self, index: int) -> np.ndarray:
        """The pixels of one class, bool (H, W)."""
        return self.labels == index

    def summary(self, size: tuple[int, int] | None = None) -> list[ClassSummary]:
        """The classes that occur, largest first.

        Args:
            size: (H, W) at which pixels are counted, as if the result were `resized`; None is the size of the result.
        """
        # How often each row and column occurs at that size.
        times = [
            np.bincount(nearest(new, old), minlength=old) for new, old in zip(size or self.size, self.size, strict=True)
        ]
        pixels, score = np.zeros(len(self.names)), np.zeros(len(self.names))
        for start in range(0, len(self.labels), _ROWS):  # in bands, because bincount makes 64-bit copies
            rows = slice(start, start + _ROWS)
            labelled = self.labels[rows].ravel() + 1
            weights = np.outer(times[0][rows], times[1]).ravel()
            pixels += np.bincount(labelled, weights, len(self.names) + 1)[1:]
            score += np.bincount(labelled, weights * self.scores[rows].ravel(), len(self.names) + 1)[1:]
        total = int(times[0].sum()) * int(times[1].sum())
        return [
            ClassSummary(int(i), self.names[i], int(pixels[i]), float(pixels[i] / total), float(score[i] / pixels[i]))
            for i in np.argsort(-pixels, kind="stable")
            if pixels[i]
        ]

    def resized(self, size: tuple[int, int]) -> "Segmentation":
        """Labels and scores at another size (H, W), by nearest neighbour, without the best classes of each pixel.

        Classes and scores of the best would be ten more planes, four gigabytes at 100 megapixels.
        """
        none = np.empty((0, *size))
        return replace(
            self,
            labels=resize_labels(self.labels, size),
            scores=resize_labels(self.scores, size),
            top_classes=none.astype(np.int32),
            top_scores=none.astype(np.float32),
            known=None if self.known is None else resize_labels(self.known, size),
        )
