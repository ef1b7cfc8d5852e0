"""The evaluation of one method on one benchmark: of every unfinished image, and then the counts of all images."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from eval import journal
from eval.boundary import BoundaryCounts
from eval.datasets.base import Dataset, DatasetError, Sample
from eval.journal import Failure, Journal, Record, RunError
from eval.metrics import GROUND_TRUTH, Confusion
from ovseg_demo import image
from ovseg_demo.errors import ImageError
from ovseg_demo.image import Photo
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import UNLABELLED, Segmentation
from ovseg_demo.vocabulary import Vocabulary


class Segmenter(Protocol):
    """The part of `ovseg_demo.engine.Engine` that evaluation needs."""

    def load(self, method: str) -> Any:
        """Load the models of a method."""
        ...

    def segment(self, photo: Photo, vocabulary: Vocabulary, method: str, options: MethodOptions) -> Segmentation:
        """Segment a photo."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """The results of a run.

    Attributes:
        confusion: confusion matrix over all finished images.
        boundary: boundary counts over all finished images.
        records: records of the finished images, in the order of the benchmark.
        failures: failures of the other images, in the order of the benchmark.
    """

    confusion: Confusion
    boundary: BoundaryCounts
    records: tuple[Record, ...]
    failures: tuple[Failure, ...]


class Predictor:
    """A method that is asked for the words of a benchmark and answers in the labels of the benchmark.

    Args:
        engine: runs the method.
        dataset: the benchmark.
        method: id of the method.
        options: options of the method.
    """

    def __init__(self, engine: Segmenter, dataset: Dataset, method: str, options: MethodOptions) -> None:
        self._engine, self._method, self._options = engine, method, options
        words, rivals = dataset.vocabulary, dataset.rivals
        classes = [c for c in range(len(words)) if c != dataset.background]
        self._vocabulary = Vocabulary(
            (*(words.names[c] for c in classes), *rivals), (*(words.synonyms[c] for c in classes), *((),) * len(rivals))
        )
        # The last entry is for pixels that a method leaves unlabelled, -1.
        unlabelled = UNLABELLED if dataset.background is None else dataset.background
        self._labels = np.array([*classes, *[unlabelled] * (len(rivals) + 1)], np.int32)

    def __call__(self, photo: Photo) -> tuple[np.ndarray, dict[str, float]]:
        """The labels of a photo at its original size, int32 (H, W), in [0, C) or UNLABELLED, and seconds by stage."""
        result = self._engine.segment(photo, self._vocabulary, self._method, self._options)
        return self._labels[result.resized(photo.original_size).labels], dict(result.timings)


def evaluate(
    engine: Segmenter,
    dataset: Dataset,
    method: str,
    options: MethodOptions,
    folder: Path,
    process: int = 0,
    processes: int = 1,
    longest_side: int = image.WORKING_SIDE,
) -> None:
    """Evaluate this process's share of a benchmark, without the images that the journals of the folder hold already.

    An image that cannot be evaluated is reported, entered as a failure, and tried again by the next run.

    Args:
        engine: runs the method.
        dataset: every `processes`-th sample from number `process` on is this process's share.
        method: id of the method.
        options: options of the method.
        folder: folder of a run with exactly these settings, shared by all processes.
        process: the number of this process, from 0.
        processes: the number of processes.
        longest_side: largest longest side, in pixels, of the photos that the method is given.

    Raises:
        RunError: when `folder` cannot be written.
        UserError: when the method cannot be used, for example for lack of weights.
    """
    finished, _ = journal.read(folder)
    own_journal, share = Journal(folder, process), dataset.samples[process::processes]
    unfinished = [sample for sample in share if sample.key not in finished]
    total = Confusion(len(dataset.vocabulary))
    for sample in dataset:
        if sample.key in finished:
            total.add_sparse(finished[sample.key].confusion)
    if unfinished:
        engine.load(method)
    predict = Predictor(engine, dataset, method, options)
    with tqdm(
        total=len(share),
        initial=len(share) - len(unfinished),
        desc=method if processes == 1 else f"{method} (process 1 of {processes})",
        unit="image",
        disable=None if process == 0 else True,
    ) as bar:
        for sample, loading in _prefetched(unfinished, lambda sample: _load(dataset, sample, longest_side)):
            entry = _evaluate_sample(sample, loading, predict, total)
            own_journal.append(entry)
            if isinstance(entry, Failure):
                bar.write(f"{entry.path}: {entry.error}", file=sys.stderr)
            bar.set_postfix_str(f"mIoU {100 * total.scores().means[GROUND_TRUTH].miou:.2f}", refresh=False)
            bar.update()


def collect(dataset: Dataset, folder: Path) -> Evaluation:
    """The results of all images of a run.

    Args:
        dataset: the benchmark.
        folder: folder of the run.

    Raises:
        RunError: when an image has neither a record nor a failure.
    """
    records, failures = journal.read(folder)
    confusion, boundary = Confusion(len(dataset.vocabulary)), BoundaryCounts(len(dataset.vocabulary))
    if missing := [s.key for s in dataset if s.key not in records and s.key not in failures]:
        raise RunError(
            f"{len(missing)} of {len(dataset)} images have no record in {folder}, {missing[0]} for one; "
            "all processes must see the same folder."
        )
    kept = tuple(records[sample.key] for sample in dataset if sample.key in records)
    for record in kept:
        confusion.add_sparse(record.confusion)
        boundary.add_sparse(record.boundary)
    return Evaluation(confusion, boundary, kept, tuple(failures[s.key] for s in dataset if s.key in failures))


@dataclass(frozen=True)
class _Loaded:
    photo: Photo
    labels: np.ndarray
    seconds: float


def _evaluate_sample(
    sample: Sample, loading: "Future[_Loaded]", predict: Predictor, total: Confusion
) -> Record | Failure:
    """Evaluate one image, and add its counts to `total`."""
    times = [time.perf_counter()]
    try:
        loaded = loading.result()
        times.append(time.perf_counter())
        prediction, stages = predict(loaded.photo)
    except ImageError as error:
        return Failure(sample.key, str(sample.image), str(error))
    except DatasetError as error:
        return Failure(sample.key, str(sample.labels), str(error))
    times.append(time.perf_counter())
    confusion, boundary = Confusion(len(total.counts)), BoundaryCounts(len(total.counts))
    confusion.add(loaded.labels, prediction)
    boundary.add(loaded.labels, prediction)
    total.merge(confusion)
    miou = confusion.scores().means[GROUND_TRUTH].miou
    times.append(time.perf_counter())
    waiting, inference, metrics = np.diff(times).tolist()
    return Record(
        sample.key,
        None if np.isnan(miou) else miou,
        confusion.sparse(),
        boundary.sparse(),
        {"loading": loaded.seconds, "waiting": waiting, "inference": inference, "metrics": metrics},
        stages,
    )


def _load(dataset: Dataset, sample: Sample, longest_side: int) -> _Loaded:
    """A photo, reduced to at most `longest_side` pixels, and its labels. Raises ImageError or DatasetError."""
    start = time.perf_counter()
    labels = dataset.load_labels(sample)
    photo = image.load(sample.image, longest_side)
    if labels.shape != photo.original_size:
        raise DatasetError(
            f"{sample.labels} has {_size(labels.shape)} pixels, but {sample.image} has {_size(photo.original_size)}."
        )
    return _Loaded(photo, labels, time.perf_counter() - start)


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, reversed(size)))


def _prefetched(samples: Sequence[Sample], load: Callable[[Sample], Any]) -> Iterator[tuple[Sample, Future]]:
    """Each sample with its content, which is loaded while the sample before is evaluated."""
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
        next_content = pool.submit(load, samples[0]) if samples else None
        for number, sample in enumerate(samples):
            content = next_content
            if number + 1 < len(samples):
                next_content = pool.submit(load, samples[number + 1])
            assert content is not None  # there is a sample, so the first was submitted
            yield sample, content
