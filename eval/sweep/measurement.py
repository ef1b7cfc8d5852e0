"""What is counted of each image at every value of the option that is swept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval import journal
from eval.datasets.base import Dataset, Sample
from eval.journal import Journal
from eval.metrics import RULES, Confusion, Sparse, mean
from eval.protocol import Sweep
from eval.runner import Loaded, Predictor, Segmenter, load_sample, record_samples
from ovseg_demo import image

CODE = ("eval/sweep/measurement.py",)
"""The files that the records depend on, beside those of `eval.evaluate`."""


@dataclass(frozen=True)
class SweepRecord:
    """A finished image.

    Attributes:
        key: key of the sample.
        confusions: the counts of `Confusion` at each value of the sweep.
        seconds: wall time of inference and counting at each value. The first includes the stages that are cached.
    """

    key: str
    confusions: list[Sparse]
    seconds: list[float]


@dataclass(frozen=True)
class ValueScores:
    """The scores over all images at one value of a sweep, each in [0, 1], or NaN where nothing was counted.

    Attributes:
        value: of the option.
        miou: mean IoU of all classes by rule, a key of `eval.metrics.RULES`.
        background: IoU of the background; NaN for a benchmark without one.
        foreground: the mean of the IoUs of all other classes that the rule GROUND_TRUTH counts.
        pixel_accuracy: share of the labelled pixels that are right.
    """

    value: float
    miou: dict[str, float]
    background: float
    foreground: float
    pixel_accuracy: float


def measure(
    engine: Segmenter,
    dataset: Dataset,
    method: str,
    sweep: Sweep,
    folder: Path,
    process: int = 0,
    processes: int = 1,
    longest_side: int = image.WORKING_SIDE,
) -> None:
    """Evaluate this process's share of a benchmark at every value of a sweep, going on where it was interrupted.

    The values of an image are asked for in turn, so that the engine's cache answers all stages that do not depend on
    the option.

    Args:
        engine, dataset, method, folder, process, processes, longest_side: as of `eval.runner.evaluate`.
        sweep: the options of the method.

    Raises:
        RunError: when `folder` cannot be written.
        UserError: when the method cannot be used, for example for lack of weights.
    """
    finished, _ = journal.read(folder, SweepRecord)
    own_journal, share = Journal(folder, process), dataset.samples[process::processes]
    if any(sample.key not in finished for sample in share):
        engine.load(method)
    predictors = [Predictor(engine, dataset, method, sweep.at(value)) for value in sweep.values]
    classes = len(dataset.vocabulary)
    record_samples(
        share,
        finished,
        own_journal,
        load=lambda sample: load_sample(dataset, sample, longest_side),
        measure=lambda sample, loading: _record(sample, loading.result(), predictors, classes),
        title=f"{method}, {len(sweep.values)} values of {sweep.option}",
        shown=process == 0,
    )


def _record(sample: Sample, loaded: Loaded, predictors: Sequence[Predictor], classes: int) -> SweepRecord:
    confusions, times = [], [time.perf_counter()]
    for predict in predictors:
        confusion = Confusion(classes)
        confusion.add(loaded.labels, predict(loaded.photo)[0])
        confusions.append(confusion.sparse())
        times.append(time.perf_counter())
    return SweepRecord(sample.key, confusions, np.diff(times).tolist())


def scores(records: Sequence[SweepRecord], dataset: Dataset, values: Sequence[float]) -> list[ValueScores]:
    """The scores over all images at each value.

    Args:
        records: of the finished images.
        dataset: the benchmark.
        values: of the sweep.
    """
    return [
        _value_scores([record.confusions[place] for record in records], dataset, value)
        for place, value in enumerate(values)
    ]


def _value_scores(confusions: Sequence[Sparse], dataset: Dataset, value: float) -> ValueScores:
    total = Confusion(len(dataset.vocabulary))
    for confusion in confusions:
        total.add_sparse(confusion)
    found = total.scores()
    is_background = np.arange(len(found.iou)) == dataset.background
    return ValueScores(
        value,
        {rule: found.means[rule].miou for rule in RULES},
        mean(found.iou[is_background]),
        mean(found.iou[~is_background & (found.pixels > 0)]),
        found.pixel_accuracy,
    )
