"""One method over one benchmark: every image that is not finished yet, and then the counts of all."""

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
    """What is asked of `ovseg_demo.engine.Engine`."""

    def load(self, method: str) -> Any: ...

    def segment(self, photo: Photo, vocabulary: Vocabulary, method: str, options: MethodOptions) -> Segmentation: ...


@dataclass(frozen=True)
class Evaluation:
    """All that was counted.

    Attributes:
        confusion, boundary: over all finished images.
        records: of the finished images, in the order of the benchmark.
        failures: of the others.
    """

    confusion: Confusion
    boundary: BoundaryCounts
    records: tuple[Record, ...]
    failures: tuple[Failure, ...]


class Predictor:
    """A method with a benchmark's words, answering in the benchmark's labels."""

    def __init__(self, engine: Segmenter, dataset: Dataset, method: str, options: MethodOptions) -> None:
        self._engine, self._method, self._options = engine, method, options
        words, rivals = dataset.vocabulary, dataset.rivals
        classes = [c for c in range(len(words)) if c != dataset.background]
        self._asked = Vocabulary(
            (*(words.names[c] for c in classes), *rivals), (*(words.synonyms[c] for c in classes), *((),) * len(rivals))
        )
        # One entry more than words, for what a method leaves unlabelled: -1 picks the last.
        nothing = UNLABELLED if dataset.background is None else dataset.background
        self._labels = np.array([*classes, *[nothing] * (len(rivals) + 1)], np.int32)

    def __call__(self, photo: Photo) -> tuple[np.ndarray, dict[str, float]]:
        """The labels of a photo, int32 (H, W) in [0, C) or UNLABELLED, at its original size; and seconds by stage."""
        result = self._engine.segment(photo, self._asked, self._method, self._options)
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
    """Evaluate this process's share of a benchmark, less what the folder's journals hold already.

    An image that cannot be evaluated is told, written down, and tried again by the next run. Raises RunError when
    `folder` cannot be written, and whatever `engine` raises that is no ImageError.

    Args:
        engine: runs the method.
        dataset: every `processes`-th sample from number `process` on is this process's share.
        method: id of the method.
        options: its settings.
        folder: of a run with exactly these settings, shared by all processes.
        process, processes: the number of this process, from 0, and how many there are.
        longest_side: pixels of the longest side of the photos that the method is given, and so of its results.
    """
    finished, _ = journal.read(folder)
    own, share = Journal(folder, process), dataset.samples[process::processes]
    left = [sample for sample in share if sample.key not in finished]
    total = Confusion(len(dataset.vocabulary))
    for sample in dataset:
        if sample.key in finished:
            total.add_sparse(finished[sample.key].confusion)
    if left:
        engine.load(method)
    predict = Predictor(engine, dataset, method, options)
    with tqdm(
        total=len(share),
        initial=len(share) - len(left),
        desc=method if processes == 1 else f"{method} (process 1 of {processes})",
        unit="image",
        disable=None if process == 0 else True,
    ) as bar:
        for sample, loading in _ahead(left, lambda sample: _load(dataset, sample, longest_side)):
            entry = _evaluated(sample, loading, predict, total)
            own.append(entry)
            if isinstance(entry, Failure):
                bar.write(f"{entry.path}: {entry.error}", file=sys.stderr)
            bar.set_postfix_str(f"mIoU {100 * total.scores().means[GROUND_TRUTH].miou:.2f}", refresh=False)
            bar.update()


def collect(dataset: Dataset, folder: Path) -> Evaluation:
    """The counts of every image. Raises RunError when some image has neither counts nor a failure."""
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


def _evaluated(sample: Sample, loading: "Future[_Loaded]", predict: Predictor, total: Confusion) -> Record | Failure:
    """Evaluate one image, and count it in `total`."""
    marks = [time.perf_counter()]
    try:
        loaded = loading.result()
        marks.append(time.perf_counter())
        prediction, stages = predict(loaded.photo)
    except ImageError as error:
        return Failure(sample.key, str(sample.image), str(error))
    except DatasetError as error:
        return Failure(sample.key, str(sample.labels), str(error))
    marks.append(time.perf_counter())
    confusion, boundary = Confusion(len(total.counts)), BoundaryCounts(len(total.counts))
    confusion.add(loaded.labels, prediction)
    boundary.add(loaded.labels, prediction)
    total.merge(confusion)
    miou = confusion.scores().means[GROUND_TRUTH].miou
    marks.append(time.perf_counter())
    waiting, inference, metrics = np.diff(marks).tolist()
    return Record(
        sample.key,
        None if np.isnan(miou) else miou,
        confusion.sparse(),
        boundary.sparse(),
        {"loading": loaded.seconds, "waiting": waiting, "inference": inference, "metrics": metrics},
        stages,
    )


def _load(dataset: Dataset, sample: Sample, longest_side: int) -> _Loaded:
    """A photo with at most so many pixels on its longest side, and its labels. Raises ImageError or DatasetError."""
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


def _ahead(samples: Sequence[Sample], load: Callable[[Sample], Any]) -> Iterator[tuple[Sample, Future]]:
    """Each sample with its content, which was loaded while the one before was worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
        following = pool.submit(load, samples[0]) if samples else None
        for number, sample in enumerate(samples):
            loading = following
            if number + 1 < len(samples):
                following = pool.submit(load, samples[number + 1])
            assert loading is not None  # there is a sample, so the first was submitted
            yield sample, loading
