"""Automatic granularity: a value for one photo and vocabulary, from the masks and their class scores.

High values keep only the masks that are surest of their class, so outlines stay clean; but pixels that no kept mask
covers are then classified without masks, or not at all. So the rule takes as few masks as cover the photo about as well
as all of them. Other rules (the most confident label map, the label map most similar to the label maps of all other
values, the largest expected IoU, the best agreement with the label map without masks) were no better than one fixed
value for all photos; see the model card.
"""

import numpy as np

from ovseg_demo.methods.ovseg.fusion import select_masks
from ovseg_demo.proposals.cells import Cells
from ovseg_demo.result import Choice

VALUES = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Granularities that are tried in turn. Above the first, a class's second and third instance are lost."""

TOLERANCE = 0.02
"""Share of the photo that fewer masks may leave uncovered."""


def choose_granularity(cells: Cells, class_scores: np.ndarray) -> Choice:
    """The highest of VALUES whose masks cover, to within TOLERANCE, what the masks of the lowest value cover.

    Args:
        cells: the cut of the photo, R cells from N masks.
        class_scores: float32 (N, C) in [0, 1].

    Returns:
        The value, 0 to 1, and a sentence that gives the share of the photo that its masks cover.
    """
    areas = np.bincount(cells.index.ravel(), minlength=len(cells.cover)) / cells.index.size
    masks = [select_masks(class_scores, value) for value in VALUES]
    covered = [float(areas[cells.cover[:, kept].any(1)].sum()) for kept in masks]
    index = next(i for i, share in enumerate(covered) if share >= covered[-1] - TOLERANCE)
    reason = f"{VALUES[index]}, because its {_masks(masks[index])} {_percent(covered[index])} of the photo"
    if index:
        return Choice(VALUES[index], f"{reason} and those of {VALUES[index - 1]} only {_percent(covered[index - 1])}.")
    gain = covered[-1] - covered[0]
    more = f"more masks would add {_percent(gain)}" if round(gain, 2) else "more masks would add nothing"
    return Choice(VALUES[0], f"{reason} and {more}.")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _masks(kept: np.ndarray) -> str:
    count = int(kept.sum())
    return "one mask outlines" if count == 1 else f"{count} masks outline"
