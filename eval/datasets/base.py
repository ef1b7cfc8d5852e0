"""What a benchmark is: images with the class of every pixel, and the words of its classes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg_demo.errors import UserError
from ovseg_demo.vocabulary import Vocabulary

IGNORE = -1
"""The label of pixels that count nowhere, whatever value the files store for such pixels."""


class DatasetError(UserError):
    """A path, a file or a layout that is not what the benchmark needs; says what was looked for and what was found."""


@dataclass(frozen=True)
class Sample:
    """One image of a benchmark.

    Attributes:
        key: names the image in reports; unique within the benchmark.
        image: path of the photo.
        labels: path of the file that holds its labels.
    """

    key: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Dataset:
    """A benchmark, found on disk.

    Attributes:
        name: a key of `eval.datasets.DATASETS` or TRAINING.
        samples: sorted by key; at least one.
        vocabulary: the words of its C classes, in label order.
        decode: reads the labels of a sample's file, int32 (H, W) in [0, C), or IGNORE. Raises DatasetError naming
            the file when it is absent, unreadable or holds a label beyond C.
        background: index of the class that means "none of the others", or None. Methods are not asked for its
            name: pixels that a method leaves unlabelled count as background.
        seen, unseen: indices of the classes whose masks training may and may not use; empty where there is no split.
        rivals: words that methods are asked for in addition to the vocabulary; pixels that get one of them count as
            background. Empty where there is no background.
    """

    name: str
    samples: tuple[Sample, ...]
    vocabulary: Vocabulary
    decode: Callable[[Path], np.ndarray]
    background: int | None = None
    seen: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    rivals: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def load_labels(self, sample: Sample) -> np.ndarray:
        """The labels of a sample, int32 (H, W). Raises DatasetError that names the file when it cannot be used."""
        return self.decode(sample.labels)
