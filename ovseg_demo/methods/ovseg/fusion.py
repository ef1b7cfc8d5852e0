"""Granularity: mask proposals and their class scores become a label map.

The rule is that of OVSeg's public demo with SAM proposals (facebook/ov-seg): every class keeps its best mask, or
every mask that scores more than `granularity` times as well; each kept mask paints its whole row of class scores,
rows add up where masks overlap, and the class with the largest sum wins the pixel.

The sum at a pixel depends only on which masks cover it, so the image is cut once into cells of equal cover. After
that, any change of words or granularity costs one product of (cells x masks) by (masks x classes).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.result import TOP, UNLABELLED, Segmentation

DENSE_WEIGHT = 0.5
"""Exponent of what needs no masks in the geometric mean with the painted masks."""

_SMALLEST = 1e-6


@dataclass(frozen=True)
class Cells:
    """The image cut along every mask outline.

    Attributes:
        index: int32 (H, W), the cell of each pixel.
        cover: float32 (R, N), 1 where mask n covers cell r.
    """

    index: np.ndarray
    cover: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.cover.nbytes


def cut_cells(proposals: MaskProposals) -> Cells:
    """Cells of equal cover, from N proposals of an image of H x W pixels."""
    height, width = proposals.size
    # Zobrist hashing: masks draw random 64-bit words, a pixel's key is the xor of its masks' words. Two different
    # covers of one image collide with a probability below 1e-11 even at 10,000 cells.
    words = np.random.default_rng(0).integers(1, 2**63, size=len(proposals), dtype=np.uint64)
    keys = np.zeros((height, width), np.uint64)
    for number, word in enumerate(words):
        keys[proposals.mask(number)] ^= word
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    rows, columns = np.divmod(first, width)
    bits = proposals.packed[:, rows, columns // 8] >> (7 - columns % 8).astype(np.uint8) & 1
    return Cells(index.reshape(height, width).astype(np.int32), bits.T.astype(np.float32))


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
    places: Tensor | None = None,
) -> Segmentation:
    """Paint the selected masks and name every pixel.

    Args:
        cells: the cut of the image, R cells from N masks.
        class_scores: float32 (N, C) in [0, 1], rows summing to 1. Columns beyond len(names) are rivals: they select
            no mask and are never drawn, but a pixel they win stays unlabelled.
        names: the classes that may be drawn.
        granularity: see `select_masks`.
        places: class probabilities that need no masks, float32 (C, h, w) on a coarse grid over the image. Where masks
            are painted they share the decision, averaged over each cell, so that outlines stay sharp; where none is
            they decide, instead of leaving the pixel unlabelled.

    Returns:
        A result without timings; a pixel's scores are the mean over the painted masks that cover it.
    """
    drawn = len(names)
    selected = select_masks(class_scores[:, :drawn], granularity)
    cover = cells.cover[:, selected]
    painted = cover.sum(1)
    means = cover @ class_scores[selected] / np.maximum(painted, 1)[:, None]
    if places is not None:
        seen, under = _dense_means(cells, places)
        means[seen] = _ensemble(means[seen], under[seen])

    winner = means.argmax(1)
    labelled = (painted > 0) & (winner < drawn)
    labels = np.where(labelled, winner, UNLABELLED).astype(np.int32)
    scores = np.where(labelled, means.max(1), 0).astype(np.float32)

    best = np.argsort(-means[:, :drawn], axis=1, kind="stable")[:, :TOP]
    best_scores = np.take_along_axis(means, best, 1)
    result = Segmentation(
        names=names,
        labels=labels[cells.index],
        scores=scores[cells.index],
        top_classes=best.T.astype(np.int32)[:, cells.index],
        top_scores=best_scores.T.astype(np.float32)[:, cells.index],
    )
    return result if places is None else result.filled(places, (painted == 0)[cells.index])


def _ensemble(masks: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Geometric mean of two opinions (R, C), rows summing to 1, as OVSeg and FC-CLIP combine theirs."""
    logs = (1 - DENSE_WEIGHT) * np.log(masks + _SMALLEST) + DENSE_WEIGHT * np.log(places + _SMALLEST)
    together = np.exp(logs)
    return together / together.sum(1, keepdims=True)


def _dense_means(cells: Cells, places: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Which cells have a place of the grid in them, bool (R,), and the mean over these places, float32 (R, C)."""
    (height, width), (rows, columns) = cells.index.shape, places.shape[1:]
    centres = np.ix_(
        (2 * np.arange(rows) + 1) * height // (2 * rows), (2 * np.arange(columns) + 1) * width // (2 * columns)
    )
    cell = torch.from_numpy(cells.index[centres].ravel()).long()
    sums = torch.zeros(len(cells.cover), len(places)).index_add_(0, cell, places.flatten(1).T.cpu())
    counts = torch.bincount(cell, minlength=len(cells.cover))
    return (counts > 0).numpy(), (sums / counts.clamp(min=1)[:, None]).numpy()
