"""What the words of a vocabulary do not describe: for every pixel the probability that its word fits at all.

This is open-set recognition. Pixels of classes that were asked for are known, all others are unknown. A pixel is known
when its logit for a word is high in itself and higher than the logits of background words; a logistic regression, the
`Calibration` of the model, weighs both. The methods that share a model share its calibration.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from torch import Tensor

from ovseg_demo.models.base import UNCALIBRATED, Calibration
from ovseg_demo.proposals.cells import Cells
from ovseg_demo.result import InterpolatedScores, Segmentation, resize_labels

_EXCEEDING = 0.01
"""Share of the places that shows a class which is present, see `Calibration`."""

_SMALLEST = 1e-6


def log_odds(logits: Tensor, background: Tensor, calibration: Calibration) -> Tensor:
    """The log-odds that each place shows each class rather than something that was not asked for.

    Args:
        logits: of C classes, (C, ...).
        background: logits of R background words at the same places, (R, ...), R >= 1.
        calibration: of these logits.

    Returns:
        float32 (C, ...).
    """
    rivals = background.logsumexp(0) if calibration.all_rivals else background.amax(0)
    rivals = rivals.clamp(min=calibration.floor)
    return calibration.word * logits - calibration.background * rivals + calibration.offset


def odds_of(probabilities: Tensor) -> Tensor:
    """The log-odds of probabilities, of any shape, that a place shows a class; 0 and 1 have finite ones."""
    return probabilities.logit(_SMALLEST)


def presence(odds: Tensor, calibration: Calibration = UNCALIBRATED) -> np.ndarray:
    """The probability that each class is in the photo at all, float32 (C,).

    Args:
        odds: log-odds of C classes at any places that cover the photo evenly, (C, ...).
        calibration: of the model.
    """
    if not odds.numel():  # no region, or no class
        return np.zeros(len(odds), np.float32)
    return (calibration.presence * highest_odds(odds) + calibration.presence_offset).sigmoid().cpu().numpy()


def highest_odds(odds: Tensor) -> Tensor:
    """The log-odds that a hundredth of the places exceed, of each class, float32 (C,).

    Args:
        odds: as of `presence`, at least at one place.
    """
    places = odds.flatten(1)
    exceeding = max(1, int(_EXCEEDING * places.shape[1]))
    return places.topk(exceeding, 1).values[:, -1]


def with_known(
    result: Segmentation,
    odds: Tensor,
    calibration: Calibration = UNCALIBRATED,
    cells: Cells | None = None,
) -> Segmentation:
    """The same result with `known` and `presence`.

    Args:
        result: of a photo of H x W pixels, with C classes.
        odds: log-odds of the classes on a grid over the photo, float32 (C, h, w); they are interpolated bilinearly.
        calibration: of the model, for `presence`.
        cells: where given, the log-odds of the pixels of one cell with one label are averaged, so that the outlines of
            masks stay sharp; only cells with a mask over them. At another size, the nearest pixel counts.
    """
    plane = _of_labels(result.labels, odds)
    if cells is not None:
        plane = _averaged(plane, result.labels, cells, len(result.names))
    return replace(result, known=_sigmoid(plane), presence=presence(odds, calibration))


def with_known_of_cells(result: Segmentation, odds: np.ndarray, index: np.ndarray) -> Segmentation:
    """The same result with `known`, from log-odds of cells.

    Args:
        result: of a photo of H x W pixels, with C classes.
        odds: float32 (R, C), of each cell.
        index: int32 (h, w), the cell of each pixel, at any size; the nearest pixel counts.
    """
    return replace(result, known=_sigmoid(odds[resize_labels(index, result.size), result.labels]))


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-odds.astype(np.float32)))).astype(np.float32)


def _of_labels(labels: np.ndarray, odds: Tensor) -> np.ndarray:
    """The log-odds of the class of each pixel, float32 (H, W), from (C, h, w); 0 where unlabelled."""
    size = labels.shape
    plane = np.zeros(labels.size, np.float32)
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")  # the pixels of one class after those of another
    bounds = np.searchsorted(flat[order], np.arange(len(odds) + 1))
    for index, (start, stop) in enumerate(pairwise(bounds)):
        if start == stop:
            continue
        pixels = order[start:stop]
        of_class = InterpolatedScores(odds[index, None], size)
        plane[pixels] = of_class.sample(*np.divmod(pixels, size[1]))[0].cpu().numpy()
    return plane.reshape(size)


def _averaged(plane: np.ndarray, labels: np.ndarray, cells: Cells, classes: int) -> np.ndarray:
    """The mean of a plane (H, W) over the pixels of one cell with one label, where the cell has a mask over it."""
    index = resize_labels(cells.index, labels.shape)
    group = (index.astype(np.int64) * (classes + 1) + labels + 1).ravel()
    _, group = np.unique(group, return_inverse=True)
    means = np.bincount(group, plane.ravel()) / np.bincount(group)
    covered = cells.cover.sum(1) > 0
    return np.where(covered[index], means[group].reshape(plane.shape), plane)
