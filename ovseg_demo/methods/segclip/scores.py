"""From embeddings of regions and words to a class for every pixel: SegCLIP's inference (Luo et al. 2023, section 2.5).

A class score lies between 0 and 1. It is the probability of the class at a region, multiplied in the released code by
its probability among the five classes that fit the whole window best. It needs no normalisation over the classes: a low
score of the best class says that no class fits.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.segclip.cells import RegionCells
from ovseg_demo.methods.segclip.encoder import PhotoRegions
from ovseg_demo.result import TOP, UNLABELLED, Segmentation

IMAGE_CLASSES = 5
"""Number of classes that the image prior leaves in each window, as in the released code."""

_SCORES_AT_ONCE = 2**20


def region_scores(regions: PhotoRegions, texts: ClassTextEmbeddings, scale: float, image_prior: bool) -> Tensor:
    """The scores of C classes at the R regions of N windows, float32 (N, R, C) in [0, 1].

    Args:
        regions: of a photo.
        texts: words of the classes; a class has the logit of its best word.
        scale: the factor of cosines, at least 0.
        image_prior: whether classes are limited, and weighted, by what fits the whole window.
    """
    words = scale * texts.embeddings.T.to(regions.regions)
    logits = texts.of_classes(regions.regions @ words)
    scores = logits.softmax(-1)
    if image_prior:
        whole = texts.of_classes(regions.windows @ words)
        likely = whole.topk(min(IMAGE_CLASSES, whole.shape[1])).indices
        unlikely = torch.ones_like(whole, dtype=torch.bool).scatter_(1, likely, False)
        scores *= logits.masked_fill(unlikely[:, None], -torch.inf).softmax(-1)
    return scores


def name_cells(scores: Tensor, cells: RegionCells, names: tuple[str, ...], threshold: float) -> Segmentation:
    """The result of the released code: every pixel has the scores of the regions at its place.

    A region is background where no class reaches the threshold, or the best score of the window if that is lower.
    Background is averaged and interpolated as the scores are, and a pixel stays unlabelled where it then exceeds them.

    Args:
        scores: of C' >= C classes, float32 (N, R, C'); classes beyond the C names are never drawn.
        cells: of the photo.
        names: of the C classes.
        threshold: in [0, 1].
    """
    best = scores[..., : len(names)].amax(-1)
    background = best < best.amax(1, keepdim=True).clamp(max=threshold)
    of_regions = torch.cat([scores, background[..., None]], -1).flatten(0, 1).cpu()
    of_cells = torch.from_numpy(cells.shares) @ of_regions
    table, places = _rank(of_cells, len(names)), cells.cells.astype(np.intp)
    result = Segmentation(
        names,
        np.take(table.labels, places),
        np.take(table.scores, places),
        np.stack([np.take(classes, places) for classes in table.top_classes]),
        np.stack([np.take(values, places) for values in table.top_scores]),
    )
    step = max(1, _SCORES_AT_ONCE // (4 * of_cells.shape[1]))
    for start in range(0, len(cells.mixed), step):
        some = slice(start, start + step)
        corners, weights = (torch.from_numpy(array[some]) for array in (cells.corners, cells.weights))
        mixture = (of_cells[corners] * weights[..., None]).sum(1)
        _put(result, cells.mixed[some], _rank(mixture, len(names)))
    return result


def name_patches(
    scores: Tensor, regions: PhotoRegions, names: tuple[str, ...], threshold: float, size: tuple[int, int]
) -> Segmentation:
    """The result as the paper describes it: class scores are interpolated from patches to pixels.

    Each patch has the scores of its most probable region. Pixels where no class reaches the threshold are unlabelled.

    Args:
        scores: as of `name_cells`.
        regions: of the photo.
        names: of the C classes.
        threshold: in [0, 1].
        size: (H, W) of the photo in pixels.
    """
    layout, classes = regions.layout, scores.shape[2]
    assigned = regions.soft.argmax(1).flatten(1)[..., None].expand(-1, -1, classes)
    of_patches = layout.assemble(scores.gather(1, assigned)).cpu()
    columns_done, rows = of_patches @ layout.columns.to_pixels(size[1]), layout.rows.to_pixels(size[0]).T
    kept = min(TOP, len(names))
    result = Segmentation(
        names,
        np.empty(size, np.int32),
        np.empty(size, np.float32),
        np.empty((kept, *size), np.int32),
        np.empty((kept, *size), np.float32),
    )
    band = max(1, _SCORES_AT_ONCE // (classes * size[1]))
    for start in range(0, size[0], band):
        found = (rows[start : start + band] @ columns_done).flatten(1).T.contiguous()
        background = found.new_full((len(found), 1), threshold)
        pixels = np.arange(start * size[1], start * size[1] + len(found))
        _put(result, pixels, _rank(torch.cat([found, background], 1), len(names)))
    return result


class _Ranked(NamedTuple):
    """Labels, their scores (P,), and the best classes and their scores (K, P), of P pixels or cells."""

    labels: np.ndarray
    scores: np.ndarray
    top_classes: np.ndarray
    top_scores: np.ndarray


def _rank(scores: Tensor, drawn: int) -> _Ranked:
    """The best classes by scores (P, C'); only the first `drawn` may be, and are where no other has a higher score."""
    values, classes = scores[:, :drawn].topk(min(TOP, drawn), 1)
    labelled = values[:, 0] >= scores[:, drawn:].amax(1)
    labels = torch.where(labelled, classes[:, 0], UNLABELLED).int()
    confidences = torch.where(labelled, values[:, 0], 0)
    return _Ranked(*(each.numpy() for each in (labels, confidences, classes.int().T, values.T)))


def _put(result: Segmentation, pixels: np.ndarray, ranked: _Ranked) -> None:
    """Write what is known of some pixels, given as indices into all pixels in rows, into a result."""
    for plane, values in zip((result.labels, result.scores), ranked[:2], strict=True):
        plane.reshape(-1)[pixels] = values
    for planes, values in zip((result.top_classes, result.top_scores), ranked[2:], strict=True):
        planes.reshape(len(planes), -1)[:, pixels] = values
