"""Granularity: mask proposals and their class scores become a label map.

The rule is that of OVSeg's public demo with SAM proposals (facebook/ov-seg): every class keeps its best mask, or
every mask that scores more than `granularity` times as well; each kept mask paints its whole row of class scores,
rows add up where masks overlap, and the class with the largest sum wins the pixel.

The sum at a pixel depends only on which masks cover it, so the image is cut once into cells of equal cover
(`proposals.cells`). After that, any change of words or granularity costs one product of (cells x masks) by
(masks x classes).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.proposals.cells import Cells
from ovseg_demo.result import TOP, UNLABELLED, Segmentation

DENSE_WEIGHT = 0.5
"""Exponent of the dense scores in the geometric mean with the scores of the painted masks."""

_SMALLEST = 1e-6


def select_masks(class_scores: np.ndarray, granularity: float) -> np.ndarray:
    """Which masks are painted, bool (N,).

    Args:
        class_scores: (N, C) in [0, 1], the score of every mask for every class that may be drawn.
        granularity: 0 to 1. At 1 each class keeps its best mask only; below, every mask whose score for some class
            exceeds `granularity` times the best score of that class.
    """
    count, classes = class_scores.shape
    selected = np.zeros(count, bool)
    if count == 0 or classes == 0:
        return selected
    if granularity >= 1:
        selected[class_scores.argmax(0)] = True
        return selected
    return (class_scores > granularity * class_scores.max(0)).any(1)


def fuse_masks(
    cells: Cells,
    class_scores: np.ndarray,
    names: tuple[str, ...],
    granularity: float,
    dense_scores: Tensor | None = None,
    size: tuple[int, int] | None = None,
) -> Segmentation:
    """Paint the selected masks and name every pixel.

    Args:
        cells: the cut of an image of h x w pixels, R cells from N masks.
        class_scores: float32 (N, C) in [0, 1], rows summing to 1, or of a single class.
        names: the C classes.
        granularity: see `select_masks`.
        dense_scores: class probabilities that need no masks, float32 (C, h', w') on a coarse grid over the image. In
            painted cells, the geometric mean of the mask scores and of the dense scores, averaged over the cell so
            that outlines stay sharp, decides; elsewhere the dense scores alone decide, instead of leaving the pixel
            unlabelled.
        size: (H, W) of the result; None is the size of the cut image. At another size the sums of the painted rows
            are interpolated bilinearly, and then the best class is taken. That is the order of OVSeg's demo with
            MaskFormer, which paints on the resized photo. A pixel that any painted cell contributes to is labelled.

    Returns:
        A result without timings; a pixel's scores are the mean of the painted rows that cover it.
    """
    means, counts = _painted(cells, class_scores, granularity, class_scores)
    if dense_scores is not None:
        measured, dense_means = _dense_means(cells, dense_scores)
        means[measured] = _ensemble(means[measured], dense_means[measured])

    resized = ResizedCells(cells.index, means * counts[:, None], size or cells.size)
    nearest, ambiguous = resized.uniform()
    result, single = _name_cells(means, counts > 0, names, nearest), len(names) == 1
    if ambiguous.any():
        result = result.filled(resized, ambiguous, single)
    if dense_scores is not None:
        result = result.filled(dense_scores, resized.everywhere(counts == 0), single)
    return replace(result, independent=single)


def paint(cells: Cells, class_scores: np.ndarray, granularity: float, values: np.ndarray) -> np.ndarray:
    """The mean in each cell of what the painted masks over it carry, float32 (R, C); 0 where none is painted.

    Args:
        cells, class_scores, granularity: as of `fuse_masks`.
        values: float32 (N, C), what each mask carries.
    """
    return _painted(cells, class_scores, granularity, values)[0]


def _painted(
    cells: Cells, class_scores: np.ndarray, granularity: float, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The means of `paint` and the number of painted masks over each cell, float32 (R,)."""
    selected = select_masks(class_scores, granularity)
    cover = cells.cover[:, selected]
    counts = cover.sum(1)
    return cover @ values[selected] / np.maximum(counts, 1)[:, None], counts


class ResizedCells:
    """Scores that are constant in each cell, interpolated bilinearly to another size of the image.

    The interpolation is that of torch's `interpolate` without aligned corners. Only requested pixels are computed: a
    map of all classes would take gigabytes with large vocabularies.

    Args:
        index: int32 (h, w), the cell of each pixel.
        scores: float32 (R, C), of each cell.
        size: (H, W) that the scores are interpolated to.
    """

    def __init__(self, index: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> None:
        self._index, self._scores, self._size = index, scores, size
        self._rows, self._columns = (_BilinearAxis(*lengths) for lengths in zip(index.shape, size, strict=True))
        self.classes = scores.shape[1]
        self.device = torch.device("cpu")

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """The scores of P pixels of the resized image, by their row and column: float32 (C, P)."""
        total = np.zeros((len(rows), self.classes), np.float32)
        for y, row_weights in self._rows.neighbours():
            for x, column_weights in self._columns.neighbours():
                weights = row_weights[rows] * column_weights[columns]
                total += weights[:, None] * self._scores[self._index[y[rows], x[columns]]]
        return torch.from_numpy(total).T

    def uniform(self) -> tuple[np.ndarray, np.ndarray]:
        """A contributing cell of each pixel, int32 (H, W), and where it is not the only one, bool (H, W)."""
        if self._size == self._index.shape:
            return self._index, np.zeros(self._size, bool)
        first, *others = self._corners(self._index)
        return first, np.logical_or.reduce([other != first for other in others])

    def everywhere(self, flags: np.ndarray) -> np.ndarray:
        """Where all contributing cells have a flag, bool (H, W), from bool (R,)."""
        flagged = flags[self._index]
        return flagged if self._size == self._index.shape else np.logical_and.reduce(list(self._corners(flagged)))

    def _corners(self, plane: np.ndarray) -> Iterator[np.ndarray]:
        for y, _ in self._rows.neighbours():
            for x, _ in self._columns.neighbours():
                yield plane[np.ix_(y, x)]


class _BilinearAxis:
    """For each pixel along one resized axis, the two original pixels between which it lies, and their weights."""

    def __init__(self, old: int, new: int) -> None:
        # In float32, as torch computes them: a weight of exactly 0 there is one here.
        scale = np.float32(old) / np.float32(new)
        coordinates = np.maximum(scale * (np.arange(new, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
        self._lower = np.minimum(coordinates.astype(np.int64), old - 1)
        self._weight = np.clip(coordinates - self._lower, 0, 1).astype(np.float32)
        # Where the upper pixel has no weight it is replaced by the lower one, so that both contribute.
        self._upper = np.minimum(self._lower + (self._weight > 0), old - 1)

    def neighbours(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The lower and the upper pixels, int64 (new,), each with their weights, float32 (new,)."""
        return (self._lower, 1 - self._weight), (self._upper, self._weight)


def _name_cells(means: np.ndarray, painted: np.ndarray, names: tuple[str, ...], index: np.ndarray) -> Segmentation:
    """The best classes of each cell, from its scores (R, C) and whether it is painted (R,), at its pixels (H, W)."""
    labels = np.where(painted, means.argmax(1), UNLABELLED).astype(np.int32)
    scores = np.where(painted, means.max(1), 0).astype(np.float32)
    best = np.argsort(-means, axis=1, kind="stable")[:, :TOP]
    best_scores = np.take_along_axis(means, best, 1)
    return Segmentation(
        names=names,
        labels=labels[index],
        scores=scores[index],
        top_classes=best.T.astype(np.int32)[:, index],
        top_scores=best_scores.T.astype(np.float32)[:, index],
    )


def _ensemble(mask_scores: np.ndarray, dense_scores: np.ndarray) -> np.ndarray:
    """Geometric mean of two class distributions (R, C), as in OVSeg and FC-CLIP; rows sum to 1, if C is not 1."""
    logs = (1 - DENSE_WEIGHT) * np.log(mask_scores + _SMALLEST) + DENSE_WEIGHT * np.log(dense_scores + _SMALLEST)
    products = np.exp(logs)
    return products / products.sum(1, keepdims=True) if products.shape[1] > 1 else products


def _dense_means(cells: Cells, dense_scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Which cells have a grid point in them, bool (R,), and the mean dense scores of these points, float32 (R, C)."""
    (height, width), (rows, columns) = cells.size, dense_scores.shape[1:]
    centres = np.ix_(
        (2 * np.arange(rows) + 1) * height // (2 * rows), (2 * np.arange(columns) + 1) * width // (2 * columns)
    )
    cell = torch.from_numpy(cells.index[centres].ravel()).long()
    sums = torch.zeros(len(cells.cover), len(dense_scores)).index_add_(0, cell, dense_scores.flatten(1).T.cpu())
    counts = torch.bincount(cell, minlength=len(cells.cover))
    return (counts > 0).numpy(), (sums / counts.clamp(min=1)[:, None]).numpy()
