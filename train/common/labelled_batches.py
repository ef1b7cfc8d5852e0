"""Batches of augmented photos with labels from several sets, each set with its own vocabulary."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval import datasets
from eval.datasets.base import IGNORE, DatasetError
from train.common import image_sets
from train.common.augmentation import Augmentation, augment
from train.common.image_sets import LabelledSet
from train.common.sampling import Batch, SetSampler, StepGenerator

BACKGROUND = -2
"""The label of pixels of background: unlike those with IGNORE, they are known to show no class with a name."""


def find_labelled_sets(data: Path, names: Sequence[str], limit: int | None = None) -> list[LabelledSet]:
    """The labelled sets to train on.

    Args:
        data: folder that holds folders NAME_train as in `train.common.image_sets`, without their held-out photos, or
            the files of training splits.
        names: names of training splits, keys of `eval.datasets.TRAINING`; empty for the folders.
        limit: only the first so many photos of each set; None for all.

    Raises:
        DatasetError: when there are no such files, a set has no training class, or no photo of a set shows one.
    """
    sets = [_split(name, data, limit) for name in names] or image_sets.labelled_sets(data, limit)
    if not sets:
        raise DatasetError(f"{data} holds no folder NAME_train with images/, masks/ and classes.json to learn from.")
    for source in sets:
        if not any(source.training_classes):
            raise DatasetError(f"{source.name} has no class with a name to learn.")
        named = np.flatnonzero(source.training_classes)
        if not any(np.isin(source.dataset.load_labels(sample), named).any() for sample in source.dataset):
            raise DatasetError(f"No mask of {source.name} shows a class with a name.")
    return sets


def training_class_names(source: LabelledSet) -> list[str]:
    """Names of the training classes of a set, in the order of the labels of `LabelledBatches`."""
    return [name for name, trained in zip(source.names, source.training_classes, strict=True) if trained]


class LabelledBatches:
    """A `BatchSampler` of augmented photos: sets are drawn by `SetSampler`, the photos of a set evenly.

    A batch has "images", uint8 (B, 3, side, side); "labels", int64 (B, side, side), rows of `training_class_names`,
    BACKGROUND or IGNORE; and "sets", the B numbers of the sets that the photos are of.

    Args:
        sets: the labelled sets.
        augmentation: sizes of the augmented photos.
        batch: B, the photos of one process.
        mixed: whether a batch may have photos of several sets; otherwise all photos of a batch are of one set, and so
            have one vocabulary.
    """

    def __init__(self, sets: Sequence[LabelledSet], augmentation: Augmentation, batch: int, mixed: bool = True) -> None:
        self._sets, self._augmentation, self._batch, self._mixed = sets, augmentation, batch, mixed
        self._sampler = SetSampler([len(source.dataset) for source in sets], [sum(s.training_classes) for s in sets])
        self._rows = [training_rows(source) for source in sets]

    def __call__(self, generator: StepGenerator) -> Batch:
        draws = self._batch if self._mixed else 1
        sets = self._sampler.draw_sets(draws, generator) * (self._batch // draws)
        images, labels = zip(*(self._augmented_photo(number, generator) for number in sets), strict=True)
        return {"images": torch.stack(images), "labels": torch.stack(labels), "sets": sets}

    def _augmented_photo(self, number: int, generator: StepGenerator) -> tuple[torch.Tensor, torch.Tensor]:
        source = self._sets[number]
        pixels, labels = source.load(source.dataset.samples[self._sampler.draw_photo(number, generator)])
        return augment(pixels, self._rows[number][labels], self._augmentation, generator)


def training_rows(source: LabelledSet) -> np.ndarray:
    """Rows in `training_class_names` of all labels, BACKGROUND for those without one; the last is for IGNORE, -1."""
    trained = np.array(source.training_classes)
    return np.append(np.where(trained, trained.cumsum() - 1, BACKGROUND), IGNORE)


def _split(name: str, data: Path, limit: int | None) -> LabelledSet:
    dataset = datasets.open_dataset(name, data)
    trained = tuple(index != dataset.background for index in range(len(dataset.vocabulary)))
    return LabelledSet(name, replace(dataset, samples=dataset.samples[:limit]), trained)
