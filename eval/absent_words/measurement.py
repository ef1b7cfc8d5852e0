"""What is counted: of each vocabulary of a photo, and over the photos of a run."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.absent_words.reliability import Reliability, average_precision, share
from eval.absent_words.vocabularies import KINDS, PhotoClasses, draw, truth
from eval.datasets.base import IGNORE, Dataset, Sample
from eval.metrics import GROUND_TRUTH, Confusion, Sparse, ratio
from eval.runner import Loaded, Segmenter
from ovseg_demo.image import Photo
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import UNLABELLED, Segmentation
from ovseg_demo.vocabulary import Vocabulary

PRESENT = 0.5
"""The probability from which on a word counts as said to be in the photo."""


@dataclass(frozen=True)
class Outcome:
    """What a method made of one vocabulary on one photo.

    Attributes:
        offered: indices of the classes of the vocabulary.
        present: whether each of them is in the photo.
        presence: the probability of that by the method, in [0, 1].
        confusion: the counts of `Confusion`, unlabelled being a class.
        confidence: the sums of `Reliability` for the pixels that were given a class.
    """

    offered: list[int]
    present: list[bool]
    presence: list[float]
    confusion: Sparse
    confidence: list[list[float]]


@dataclass(frozen=True)
class PhotoRecord:
    """A finished photo.

    Attributes:
        key: key of the sample.
        outcomes: by kind of vocabulary; empty for a photo without a class that is large enough.
    """

    key: str
    outcomes: dict[str, Outcome]

    @classmethod
    def of_fields(cls, key: str, outcomes: dict[str, dict[str, Any]]) -> "PhotoRecord":
        """A record of the fields that a journal holds."""
        return cls(key, {kind: Outcome(**fields) for kind, fields in outcomes.items()})


class Asker:
    """Asks a method for vocabularies of photos of a data set.

    Args:
        engine: runs the method.
        dataset: the data set.
        method: id of the method.
        options: options of the method.
        seed: of the vocabularies, see `draw`.
    """

    def __init__(self, engine: Segmenter, dataset: Dataset, method: str, options: MethodOptions, seed: int) -> None:
        self._engine, self._dataset, self._method, self._options = engine, dataset, method, options
        self._seed = seed

    def measure(self, sample: Sample, loading: "Future[Loaded]") -> PhotoRecord:
        """The record of a photo. Raises ImageError or DatasetError when it cannot be loaded."""
        loaded = loading.result()
        background, words = self._dataset.background, len(self._dataset.vocabulary)
        classes = PhotoClasses.of(loaded.labels, words, background)
        vocabularies = draw(classes, sample.key, self._seed)
        return PhotoRecord(
            sample.key,
            {kind: self._outcome(loaded, classes, offered) for kind, offered in vocabularies.items()},
        )

    def _outcome(self, loaded: Loaded, classes: PhotoClasses, offered: tuple[int, ...]) -> Outcome:
        counted, unlabelled = counted_classes(self._dataset)
        found = self._ask(loaded.photo, offered)
        nearest = found.resized(loaded.photo.original_size)
        given = np.array([*offered, unlabelled], np.int32)[nearest.labels]  # UNLABELLED, -1, picks the last entry
        right = truth(loaded.labels, classes, offered, unlabelled)
        confusion = Confusion(counted)
        confusion.add(right, given)
        sure = (nearest.labels != UNLABELLED) & (right != IGNORE)
        confidence = Reliability.of(nearest.scores[sure], (given == right)[sure])
        presence = _presence(found).tolist()
        present = [c in classes.present for c in offered]
        return Outcome(list(offered), present, presence, confusion.sparse(), confidence.sums.tolist())

    def _ask(self, photo: Photo, offered: tuple[int, ...]) -> Segmentation:
        words = self._dataset.vocabulary
        vocabulary = Vocabulary(tuple(words.names[c] for c in offered), tuple(words.synonyms[c] for c in offered))
        return self._engine.segment(photo, vocabulary, self._method, self._options)


def _presence(found: Segmentation) -> np.ndarray:
    """The probability that each class is in the photo, float32 (C,).

    A result without that probability has the highest score of the class at any pixel in its place.
    """
    if found.presence is not None:
        return found.presence
    best = [found.top_scores[found.top_classes == c].max(initial=0) for c in range(len(found.names))]
    return np.array(best, np.float32)


def counted_classes(dataset: Dataset) -> tuple[int, int]:
    """The number of classes in the counts, and which of them is "unlabelled": the background, or one more class."""
    classes = len(dataset.vocabulary)
    return (classes + 1, classes) if dataset.background is None else (classes, dataset.background)


def measures(records: Sequence[PhotoRecord], dataset: Dataset) -> dict[str, dict[str, Any]]:
    """What a method did with each kind of vocabulary over all photos, by kind.

    Args:
        records: of the photos.
        dataset: the data set.

    Returns:
        By kind a dictionary for JSON, with shares in [0, 1], or NaN where there was nothing to count:
        photos, words: the number of photos, and of words over all photos.
        miou: the mean IoU of the classes in the ground truth, unlabelled being one of them.
        foreground_miou: the same where unlabelled is no class and the pixels that should be unlabelled are left out.
        labelled: share of the pixels that were given a class.
        background_labelled: share of them among the pixels that should be unlabelled.
        foreground_lost: share of pixels left unlabelled among those with a class.
        presence: "average_precision" over all pairs of photo and word; "false_positive_rate" and "found", the shares of
            absent and of present words whose probability is at least PRESENT.
        calibration_error, reliability: of "pixels" and "presence", see `Reliability`.
    """
    return {
        kind: _measures([record.outcomes[kind] for record in records if kind in record.outcomes], dataset)
        for kind in KINDS
    }


def _measures(outcomes: Sequence[Outcome], dataset: Dataset) -> dict[str, Any]:
    counted, unlabelled = counted_classes(dataset)
    confusion, pixels = Confusion(counted), Reliability()
    for outcome in outcomes:
        confusion.add_sparse(outcome.confusion)
        pixels += Reliability(np.array(outcome.confidence))
    presence = np.array([p for outcome in outcomes for p in outcome.presence])
    present = np.array([p for outcome in outcomes for p in outcome.present], bool)
    curves = {"pixels": pixels, "presence": Reliability.of(presence, present)}
    counts = confusion.counts
    foreground = Confusion(counted)
    foreground.merge(confusion)
    foreground.counts[unlabelled] = 0
    return {
        "photos": len(outcomes),
        "words": len(presence),
        "miou": confusion.scores().means[GROUND_TRUTH].miou,
        "foreground_miou": foreground.scores().means[GROUND_TRUTH].miou,
        "labelled": float(1 - ratio(counts[:, unlabelled].sum(), counts.sum())),
        "background_labelled": float(1 - ratio(counts[unlabelled, unlabelled], counts[unlabelled].sum())),
        "foreground_lost": float(ratio(foreground.counts[:, unlabelled].sum(), foreground.counts.sum())),
        "presence": {
            "average_precision": average_precision(presence, present),
            "false_positive_rate": share(presence[~present] >= PRESENT),
            "found": share(presence[present] >= PRESENT),
        },
        "calibration_error": {name: curve.calibration_error() for name, curve in curves.items()},
        "reliability": {name: curve.points() for name, curve in curves.items()},
    }
