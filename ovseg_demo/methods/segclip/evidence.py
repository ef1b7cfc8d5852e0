"""What SegCLIP shows under "Look inside": the regions as they formed, and the words that each is nearest to."""

import numpy as np
from torch import Tensor

from ovseg_demo.methods.segclip.cells import RegionCells, centre_areas, centre_map
from ovseg_demo.result import RegionMap

_WORDS_SHOWN = 5


def formed_regions(scores: Tensor, cells: RegionCells, names: tuple[str, ...]) -> RegionMap:
    """The regions by the centre around which they formed, each with the best of its class scores.

    A centre has a region in each window. Their scores are averaged by area.

    Args:
        scores: of C' >= C classes, float32 (N, R, C'), in N windows of R regions each.
        cells: of the photo.
        names: of the C classes.
    """
    windows, centres, _ = scores.shape
    areas = centre_areas(cells).reshape(windows, centres, 1)
    of_classes = scores[..., : len(names)].cpu().numpy()
    mean = (of_classes * areas).sum(0) / np.maximum(areas.sum(0), 1)
    shares = areas.sum((0, 2)) / areas.sum()
    captions = tuple(
        f"{100 * share:.0f} % of the photo: {_best_words(of_region, names)}" if share else ""
        for share, of_region in zip(shares, mean, strict=True)
    )
    return RegionMap("Regions as they formed", centre_map(cells, centres), captions)


def _best_words(scores: np.ndarray, names: tuple[str, ...]) -> str:
    best = np.argsort(-scores, kind="stable")[:_WORDS_SHOWN]
    return ", ".join(f"{names[index]} {scores[index]:.2f}" for index in best)
