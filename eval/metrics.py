"""Scores of label maps against ground truth, from one streaming confusion matrix.

Counts are int64 and add up exactly: in any order, over any number of images and processes. Scores are made from the
counts last.
"""

from dataclasses import dataclass

import numpy as np

GROUND_TRUTH = "ground_truth"
"""The mean runs over the classes that occur in the ground truth: detectron2 since July 2022 (its commit f3c1bc19)."""

UNION = "union"
"""The mean runs over the classes that occur in the ground truth or the prediction; a class that is only predicted
counts as 0. detectron2 until July 2022, and so OVSeg; mmsegmentation's mean, which skips classes that occur in neither,
is equal."""

RULES = (GROUND_TRUTH, UNION)
"""The rules of the mean. Papers used both, and on 459 or 847 classes the two means differ by several points, so a score
is never reported without its rule."""

_BAND = 2**18
"""Pixels that are counted at a time: their 64-bit copies fit the CPU's cache, which is several times as fast."""

Sparse = list[list[int]]
"""Counts without their zeros: the flat indices, and the count at each."""


class Counts:
    """Exact counts of a fixed shape that add up over images and processes.

    Attributes:
        counts: int64.
    """

    counts: np.ndarray

    def __init__(self, *shape: int) -> None:
        self.counts = np.zeros(shape, np.int64)

    def merge(self, other: "Counts") -> None:
        """Add the counts of `other`. Raises ValueError when the shapes differ."""
        if self.counts.shape != other.counts.shape:
            raise ValueError(f"counts of shape {other.counts.shape} do not add to counts of {self.counts.shape}")
        self.counts += other.counts

    def sparse(self) -> Sparse:
        """The counts that are not zero: for one image a few dozen, out of 700,000 for 847 classes."""
        flat = self.counts.ravel()
        indices = np.flatnonzero(flat)
        return [indices.tolist(), flat[indices].tolist()]

    def add_sparse(self, sparse: Sparse) -> None:
        """Add counts that the method `sparse` returned."""
        indices, counts = sparse
        self.counts.reshape(-1)[indices] += np.array(counts, np.int64)


class Confusion(Counts):
    """How many pixels of class i were given class j, as counts (C, C + 1).

    The last column counts pixels that were given no class of the vocabulary: false negatives of their class, but false
    positives of no class. Ignored pixels are not counted.

    Args:
        classes: C, the number of classes.

    Example:
        >>> confusion = Confusion(2)
        >>> confusion.add(np.array([0, 0, 1, -1]), np.array([0, 1, 1, 0]))
        >>> confusion.scores().means[GROUND_TRUTH].miou
        0.5
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, classes + 1)

    def add(self, labels: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image.

        Args:
            labels: integers (H, W), the ground truth in [0, C); negative where ignored.
            prediction: integers (H, W); values outside [0, C) are no class.

        Raises:
            ValueError: when the shapes differ or a label is C or more.
        """
        classes = len(self.counts)
        if labels.shape != prediction.shape:
            raise ValueError(f"labels are {labels.shape}, the prediction is {prediction.shape}")
        for start in range(0, labels.size, _BAND):
            band = slice(start, start + _BAND)
            truth, given = labels.reshape(-1)[band], prediction.reshape(-1)[band]
            counted = truth >= 0
            truth, given = truth[counted].astype(np.intp), given[counted].astype(np.intp)
            if truth.max(initial=0) >= classes:
                raise ValueError(f"label {truth.max()} is beyond the {classes} classes")
            given[(given < 0) | (given >= classes)] = classes
            cells = np.bincount(truth * (classes + 1) + given, minlength=self.counts.size)
            self.counts += cells.reshape(self.counts.shape)

    def scores(self, seen: tuple[int, ...] = (), unseen: tuple[int, ...] = ()) -> "Scores":
        """All scores.

        Args:
            seen: indices of the seen classes; their mean is NaN if there are none.
            unseen: indices of the unseen classes; their mean is NaN if there are none.
        """
        hits = self.counts.diagonal()
        pixels, predicted = self.counts.sum(1), self.counts[:, :-1].sum(0)
        union = pixels + predicted - hits
        iou, accuracy = ratio(hits, union), ratio(hits, pixels)
        present = pixels > 0
        return Scores(
            means={
                rule: Means.of(np.where(valid, iou, np.nan), seen, unseen)
                for rule, valid in ((GROUND_TRUTH, present), (UNION, union > 0))
            },
            pixel_accuracy=float(ratio(hits.sum(), pixels.sum())),
            mean_class_accuracy=mean(accuracy),
            frequency_weighted_iou=float(ratio((iou[present] * pixels[present]).sum(), pixels.sum())),
            iou=iou,
            accuracy=accuracy,
            pixels=pixels,
            predicted=predicted,
        )


@dataclass(frozen=True)
class Means:
    """Means of the IoU under one rule, each in [0, 1], or NaN when it runs over no class.

    Attributes:
        miou: mean over all classes.
        seen: mean over the seen classes; predictions are among all classes ("generalised" zero-shot).
        unseen: mean over the unseen classes; predictions are among all classes.
        harmonic: hIoU, the harmonic mean of `seen` and `unseen`.
    """

    miou: float
    seen: float
    unseen: float
    harmonic: float

    @classmethod
    def of(cls, iou: np.ndarray, seen: tuple[int, ...], unseen: tuple[int, ...]) -> "Means":
        """The means of an IoU.

        Args:
            iou: IoU of each class, float64 (C,), NaN where the rule leaves a class out.
            seen: indices of the seen classes.
            unseen: indices of the unseen classes.
        """
        s, u = mean(iou[list(seen)]), mean(iou[list(unseen)])
        return cls(mean(iou), s, u, 2 * s * u / (s + u) if s + u != 0 else 0.0)


@dataclass(frozen=True)
class Scores:
    """The scores of a confusion matrix, in [0, 1], or NaN when nothing was counted for a score.

    Attributes:
        means: means of the IoU by rule, a key of RULES.
        pixel_accuracy: pAcc (aAcc), share of labelled pixels that are right.
        mean_class_accuracy: mAcc, the mean of `accuracy` over the classes in the ground truth.
        frequency_weighted_iou: fwIoU, the mean of `iou` weighted by `pixels`.
        iou: float64 (C,), NaN for a class in neither ground truth nor prediction.
        accuracy: float64 (C,), share of the class's pixels that are right; NaN for a class not in the ground truth.
        pixels: number of pixels of each class in the ground truth, int64 (C,).
        predicted: number of pixels of each class in the prediction, int64 (C,).
    """

    means: dict[str, Means]
    pixel_accuracy: float
    mean_class_accuracy: float
    frequency_weighted_iou: float
    iou: np.ndarray
    accuracy: np.ndarray
    pixels: np.ndarray
    predicted: np.ndarray


def mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN, or NaN, without numpy's warning, when there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
