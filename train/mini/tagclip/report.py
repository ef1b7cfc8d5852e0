"""The table of the experiment: means over seeds, with their standard deviations."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from eval import markdown
from train.mini.tagclip.experiments import VARIANTS, TrainingRun
from train.mini.tagclip.measurement import WEIGHTINGS, SegmentationCounts

_HEAD = ("decoder", "seeds", "weighting", "pAcc", "mIoU(S)", "mIoU(U)", "hIoU", "AUC of the map", "map on S / U")


def results_table(counted: Mapping[TrainingRun, SegmentationCounts], seen: Sequence[bool]) -> str:
    """Markdown, in percent."""
    rows = []
    for variant, some in groupby(sorted(counted, key=_order), key=lambda run: run.variant):
        found = [counted[run] for run in some]
        for weighting in WEIGHTINGS:
            if all(each.confusions[weighting].counts.any() for each in found):
                numbers = np.array([each.numbers(weighting, seen) for each in found])
                cells = map(_cell, numbers.T)
                rows.append((VARIANTS[variant].title, str(len(found)), weighting, *cells, *_trust(found)))
    return markdown.table(_HEAD, rows)


def _order(run: TrainingRun) -> int:
    return list(VARIANTS).index(run.variant)


def _trust(found: Sequence[SegmentationCounts]) -> tuple[str, str]:
    if not all(each.trusty.any() for each in found):
        return "", ""
    seen, unseen = np.mean([each.trust() for each in found], 0)
    return _cell(np.array([100 * each.area() for each in found])), f"{seen:.2f} / {unseen:.2f}"


def _cell(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values.mean():.1f}"
