"""The one result type: what a method returns and all that drawing, export and evaluation read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

UNLABELLED = -1
TOP = 5
_ROWS = 1024


@dataclass(frozen=True)
class ClassSummary:
    """One class of a result: its share of the image, 0 to 1, and the mean confidence of its pixels, 0 to 1."""

    index: int
    name: str
    pixels: int
    share: float
    confidence: float


@dataclass(frozen=True)
class Segmentation:
    """A label for every pixel of an image of H x W pixels.

    Attributes:
        names: the classes; labels index them.
        labels: int32 (H, W), UNLABELLED (-1) where no class was assigned.
        scores: float32 (H, W) in [0, 1], the confidence in the label; 0 where unlabelled.
        top_classes: int32 (K, H, W), the K <= TOP best classes of each pixel, best first. Kept instead of all C
            scores because (C, H, W) is a gigabyte for 847 classes.
        top_scores: float32 (K, H, W) in [0, 1], their scores; 0 where nothing is known of the pixel.
        timings: seconds by stage; 0 for a stage answered from the cache.
        notes: sentences a person should read.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    top_classes: np.ndarray
    top_scores: np.ndarray
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.labels.shape

    def mask(self, index: int) -> np.ndarray:
        """The pixels of one class, bool (H, W)."""
        return self.labels == index

    def summary(self) -> list[ClassSummary]:
        """The classes that occur, largest first."""
        pixels, score = np.zeros(len(self.names), np.int64), np.zeros(len(self.names))
        for start in range(0, len(self.labels), _ROWS):  # in bands, because bincount makes 64-bit copies
            rows = slice(start, start + _ROWS)
            labelled = self.labels[rows].ravel() + 1
            pixels += np.bincount(labelled, minlength=len(self.names) + 1)[1:]
            score += np.bincount(labelled, self.scores[rows].ravel(), len(self.names) + 1)[1:]
        return [
            ClassSummary(int(i), self.names[i], int(pixels[i]), pixels[i] / self.labels.size, score[i] / pixels[i])
            for i in np.argsort(-pixels, kind="stable")
            if pixels[i]
        ]

    def resized(self, size: tuple[int, int]) -> "Segmentation":
        """Labels and scores at another size (H, W), by nearest neighbour; the best classes are left behind.

        They are ten more planes, which at 100 megapixels would be four gigabytes.
        """
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, self.size, strict=True))
        here = np.ix_(rows, columns)
        none = np.empty((0, *size))
        return replace(
            self,
            labels=self.labels[here],
            scores=self.scores[here],
            top_classes=none.astype(np.int32),
            top_scores=none.astype(np.float32),
        )
