"""Batches of views from labelled sets, each set with the vocabulary of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval import datasets
from eval.datasets.base import IGNORE, DatasetError
from train.common import image_sets
from train.common.augmentation import AugmentationSettings, augment
from train.common.image_sets import LabelledSet
from train.common.sampling import Batch, SetSampler, StepGenerator

BACKGROUND = -2
"""The label of pixels of background: unlike those with IGNORE, they are known to show no class with a name."""


def find_labelled_sets(data: Path, names: Sequence[str], limit: int | None = None) -> list[LabelledSet]:
    """The sets to learn from: of each the first `limit` photos.

    Args:
        data: holds folders NAME_train as in `train.common.image_sets`, of which held-out photos are left out, or the
            files of training splits.
        names: of training splits, as in `eval.datasets.TRAINING`; none for the folders.

    Raises DatasetError when there are no such files, or a set has no class with a name, or shows none of them.
    """
    found = [_split(name, data, limit) for name in names] or image_sets.labelled_sets(data, limit)
    if not found:
        raise DatasetError(f"{data} holds no folder NAME_train with images/, masks/ and classes.json to learn from.")
    for source in found:
        if not any(source.taught):
            raise DatasetError(f"{source.name} has no class with a name to learn.")
        named = np.flatnonzero(source.taught)
        if not any(np.isin(source.dataset.load_labels(sample), named).any() for sample in source.dataset):
            raise DatasetError(f"No mask of {source.name} shows a class with a name.")
    return found


def training_class_names(source: LabelledSet) -> list[str]:
    """The words of a set's classes, without background, in the order of the batches' labels."""
    return [name for name, taught in zip(source.names, source.taught, strict=True) if taught]


class LabelledBatches:
    """Draws batches; sets of more photos and of more classes are drawn more often, the photos of a set evenly.

    A batch has "images", uint8 (B, 3, side, side), "labels", int64 (B, side, side), rows of `taught_names`,
    NOTHING or IGNORE, and "sets", the B numbers of their sets.

    Args:
        found: the sets.
        views: of the photos.
        batch: B, for each process.
        mixed: whether a batch may have photos of several sets; else all are of one, and so have one vocabulary.
    """

    def __init__(
        self, found: Sequence[LabelledSet], views: AugmentationSettings, batch: int, mixed: bool = True
    ) -> None:
        self._sets, self._views, self._batch, self._mixed = found, views, batch, mixed
        self._sampler = SetSampler([len(source.dataset) for source in found], [sum(s.taught) for s in found])
        self._rows = [_rows(source) for source in found]

    def __call__(self, generator: StepGenerator) -> Batch:
        different = self._batch if self._mixed else 1
        chosen = self._sampler.draw_sets(different, generator) * (self._batch // different)
        images, labels = zip(*(self._view(number, generator) for number in chosen), strict=True)
        return {"images": torch.stack(images), "labels": torch.stack(labels), "sets": chosen}

    def _view(self, number: int, generator: StepGenerator) -> tuple[torch.Tensor, torch.Tensor]:
        source = self._sets[number]
        pixels, labels = source.load(source.dataset.samples[self._sampler.draw_photo(number, generator)])
        return augment(pixels, self._rows[number][labels], self._views, generator)


def _rows(source: LabelledSet) -> np.ndarray:
    """The row of each label among the taught names, or NOTHING; the label IGNORE, -1, is the last."""
    taught = np.array(source.taught)
    return np.append(np.where(taught, taught.cumsum() - 1, BACKGROUND), IGNORE)


def _split(name: str, data: Path, limit: int | None) -> LabelledSet:
    dataset = datasets.open(name, data)
    taught = tuple(index != dataset.background for index in range(len(dataset.vocabulary)))
    return LabelledSet(name, replace(dataset, samples=dataset.samples[:limit]), taught)
