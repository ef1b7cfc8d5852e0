"""The evaluation of one method on one benchmark: of every unfinished image, and then the counts of all images."""

import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from eval import journal
from eval.boundary import BoundaryCounts
from eval.datasets.base import Dataset, DatasetError, Sample
from eval.journal import Failure, Journal, R, Record, RunError
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
    finished, _ = journal.read(folder, Record)
    own_journal, share = Journal(folder, process), dataset.samples[process::processes]
    total = Confusion(len(dataset.vocabulary))
    for sample in dataset:
        if sample.key in finished:
            total.add_sparse(finished[sample.key].confusion)
    if any(sample.key not in finished for sample in share):
        engine.load(method)
    predict = Predictor(engine, dataset, method, options)
    record_samples(
        share,
        finished,
        own_journal,
        load=lambda sample: load_sample(dataset, sample, longest_side),
        measure=lambda sample, loading: _evaluate_sample(sample, loading, predict, total),
        title=method if processes == 1 else f"{method} (process 1 of {processes})",
        status=lambda: f"mIoU {100 * total.scores().means[GROUND_TRUTH].miou:.2f}",
        shown=process == 0,
    )


def record_samples(
    samples: Sequence[Sample],
    finished: Container[str],
    own_journal: Journal,
    load: "Callable[[Sample], Loaded]",
    measure: "Callable[[Sample, Future[Loaded]], Any]",
    title: str,
    status: Callable[[], str] = str,
    shown: bool = True,
) -> None:
    """Measure the samples that are not finished, and append a record of each to a journal, with a progress bar.

    A sample that cannot be measured for its photo or its labels is reported and entered as a failure.

    Args:
        samples: the samples.
        finished: keys of those that are finished.
        own_journal: the journal of this process.
        load: loads a sample; the next sample is loaded while one is measured.
        measure: the record of a sample, given its content once it is loaded.
        title: stands before the progress bar.
        status: what is shown behind the bar after each sample.
        shown: whether there is a progress bar.

    Raises:
        RunError: when the journal cannot be written.
    """
    unfinished = [sample for sample in samples if sample.key not in finished]
    with tqdm(
        total=len(samples),
        initial=len(samples) - len(unfinished),
        desc=title,
        unit="image",
        disable=None if shown else True,
    ) as bar:
        for sample, loading in _prefetched(unfinished, load):
            try:
                entry = measure(sample, loading)
            except ImageError as error:
                entry = Failure(sample.key, str(sample.image), str(error))
            except DatasetError as error:
                entry = Failure(sample.key, str(sample.labels), str(error))
            own_journal.append(entry)
            if isinstance(entry, Failure):
                bar.write(f"{entry.path}: {entry.error}", file=sys.stderr)
            bar.set_postfix_str(status(), refresh=False)
            bar.update()


def collect(dataset: Dataset, folder: Path) -> Evaluation:
    """The results of all images of a run.

    Args:
        dataset: the benchmark.
        folder: folder of the run.

    Raises:
        RunError: when an image has neither a record nor a failure.
    """
    records, failures = collect_records(dataset, folder, Record)
    confusion, boundary = Confusion(len(dataset.vocabulary)), BoundaryCounts(len(dataset.vocabulary))
    for record in records:
        confusion.add_sparse(record.confusion)
        boundary.add_sparse(record.boundary)
    return Evaluation(confusion, boundary, records, failures)


def collect_records(
    dataset: Dataset, folder: Path, record: Callable[..., R]
) -> tuple[tuple[R, ...], tuple[Failure, ...]]:
    """The records and the failures of a run, each in the order of the benchmark.

    Args:
        dataset: the benchmark.
        folder: folder of the run.
        record: makes a record of the fields in the journals.

    Raises:
        RunError: when an image has neither a record nor a failure.
    """
    records, failures = journal.read(folder, record)
    if missing := [s.key for s in dataset if s.key not in records and s.key not in failures]:
        raise RunError(
            f"{len(missing)} of {len(dataset)} images have no record in {folder}, {missing[0]} for one; "
            "all processes must see the same folder."
        )
    kept = tuple(records[sample.key] for sample in dataset if sample.key in records)
    return kept, tuple(failures[s.key] for s in dataset if s.key in failures)


@dataclass(frozen=True)
class Loaded:
    """The content of a sample.

    Attributes:
        photo: the photo.
        labels: its labels at the photo's original size, int32 (H, W).
        seconds: that loading took.
    """

    photo: Photo
    labels: np.ndarray
    seconds: float


def _evaluate_sample(sample: Sample, loading: "Future[Loaded]", predict: Predictor, total: Confusion) -> Record:
    """Evaluate one image, and add its counts to `total`."""
    times = [time.perf_counter()]
    loaded = loading.result()
    times.append(time.perf_counter())
    prediction, stages = predict(loaded.photo)
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


def load_sample(dataset: Dataset, sample: Sample, longest_side: int) -> Loaded:
    """A photo, reduced to at most `longest_side` pixels, and its labels.

    Args:
        dataset: the benchmark.
        sample: one of its samples.
        longest_side: largest longest side, in pixels, of the photo.

    Raises:
        ImageError: when the photo cannot be read.
        DatasetError: when the labels cannot be used, or have another size than the photo.
    """
    start = time.perf_counter()
    labels = dataset.load_labels(sample)
    photo = image.load(sample.image, longest_side)
    if labels.shape != photo.original_size:
        raise DatasetError(
            f"{sample.labels} has {_size(labels.shape)} pixels, but {sample.image} has {_size(photo.original_size)}."
        )
    return Loaded(photo, labels, time.perf_counter() - start)


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
