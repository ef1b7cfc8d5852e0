"""The results table of the experiment: means and standard deviations over seeds."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from eval import markdown
from train.mini.tagclip.experiments import VARIANTS, TrainingRun
from train.mini.tagclip.measurement import WEIGHTINGS, SegmentationCounts

_HEAD = ("decoder", "seeds", "weighting", "pAcc", "mIoU(S)", "mIoU(U)", "hIoU", "AUC of the map", "map on S / U")


def results_table(counted: Mapping[TrainingRun, SegmentationCounts], seen: Sequence[bool]) -> str:
    """A Markdown table with a row for each variant and weighting, in percent.

    Args:
        counted: pixel counts of each run.
        seen: for each class of the data set, whether it counts as seen.
    """
    rows = []
    for variant, runs in groupby(sorted(counted, key=_order), key=lambda run: run.variant):
        by_seed = [counted[run] for run in runs]
        for weighting in WEIGHTINGS:
            if all(counts.confusions[weighting].counts.any() for counts in by_seed):
                numbers = np.array([counts.numbers(weighting, seen) for counts in by_seed])
                cells = map(_cell, numbers.T)
                rows.append((VARIANTS[variant].title, str(len(by_seed)), weighting, *cells, *_trusty_cells(by_seed)))
    return markdown.table(_HEAD, rows)


def _order(run: TrainingRun) -> int:
    return list(VARIANTS).index(run.variant)


def _trusty_cells(by_seed: Sequence[SegmentationCounts]) -> tuple[str, str]:
    if not all(counts.trusty.any() for counts in by_seed):
        return "", ""
    seen, unseen = np.mean([counts.mean_trusty() for counts in by_seed], 0)
    return _cell(np.array([100 * counts.trusty_auc() for counts in by_seed])), f"{seen:.2f} / {unseen:.2f}"


def _cell(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values.mean():.1f}"
