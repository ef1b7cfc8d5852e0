"""Automatic granularity: the value for one photo and its words, read off the masks and their class scores.

High values keep only the masks that are surest of their class, and outlines stay clean; but what no kept mask covers is
then named without masks, or not at all. So the rule asks for as few masks as cover the photo about as well as all of
them. Other rules (the most confident map, the one most like those of all other values, the largest expected IoU, the
one that agrees best with the map without masks) were no better than one fixed value for all photos; see the model card.
"""

import numpy as np

from ovseg_demo.methods.ovseg.fusion import select_masks
from ovseg_demo.proposals.cells import Cells
from ovseg_demo.result import Choice

VALUES = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Granularities that are tried in turn. Above the first, a class's second and third instance are lost."""

TOLERANCE = 0.02
"""Share of the photo that fewer masks may leave uncovered."""


def choose_granularity(cells: Cells, class_scores: np.ndarray, drawn: int) -> Choice:
    """The highest of VALUES whose masks cover, to within TOLERANCE, what the masks of the lowest value cover.

    Args:
        cells: the cut of the photo, R cells from N masks.
        class_scores: float32 (N, C) in [0, 1].
        drawn: how many of the C classes, from the first, may be drawn.
    """
    areas = np.bincount(cells.index.ravel(), minlength=len(cells.cover)) / cells.index.size
    masks = [select_masks(class_scores[:, :drawn], value) for value in VALUES]
    covered = [float(areas[cells.cover[:, kept].any(1)].sum()) for kept in masks]
    number = next(i for i, share in enumerate(covered) if share >= covered[-1] - TOLERANCE)
    reason = f"{VALUES[number]}, because its {_masks(masks[number])} {_percent(covered[number])} of the photo"
    if number:
        return Choice(
            VALUES[number], f"{reason} and those of {VALUES[number - 1]} only {_percent(covered[number - 1])}."
        )
    gain = covered[-1] - covered[0]
    more = f"more masks would add {_percent(gain)}" if round(gain, 2) else "more masks would add nothing"
    return Choice(VALUES[0], f"{reason} and {more}.")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _masks(kept: np.ndarray) -> str:
    count = int(kept.sum())
    return "one mask outlines" if count == 1 else f"{count} masks outline"
