"""Training batches: views of labelled photos, and for each photo the words that its places and queries choose among."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.mini_model import CELL
from train.common.image_sets import LabelledSet
from train.common.sampling import Batch, SetSampler
from train.mini.lexicon import Lexicon
from train.mini.mrovseg.two_resolution_views import TwoResolutionViews

UNLABELLED = -1
"""The label of places that no loss counts; background is among them, which may show anything."""


@dataclass(frozen=True)
class BatchSizes:
    """The size of a batch.

    Attributes:
        photos: number of photos.
        distractors: number of ImageNet names among the words of a photo.
    """

    photos: int = 4
    distractors: int = 100


class ViewBatches:
    """A `BatchSampler` of photos; sets are drawn by `SetSampler`.

    A batch has lists with an element for each photo: "low" and "high", float32 (W, h, w); "texts", unit vectors of its
    K words (K, D), the words of its set and then ImageNet names; "labels", int64 (h, w), rows of "texts" or UNLABELLED;
    "seeds", int64 (Q,), the label that most places in the cell of each query have, UNLABELLED without a majority; and
    "excluded", bool (K, K), for the right word in each row the words that are no negatives.

    Args:
        labelled: the sets.
        views: features of their photos.
        lexicon: text embeddings of their words.
        sizes: the size of a batch.
    """

    def __init__(
        self, labelled: Sequence[LabelledSet], views: TwoResolutionViews, lexicon: Lexicon, sizes: BatchSizes
    ) -> None:
        self._views, self._lexicon, self._sizes = views, lexicon, sizes
        self._sampler = SetSampler([len(source.dataset) for source in labelled], [len(s.names) for s in labelled])
        self._rows = [_rows(source, lexicon) for source in labelled]

    def __call__(self, generator: torch.Generator) -> Batch:
        photos = [self._photo(number, generator) for number in self._sampler.draw_sets(self._sizes.photos, generator)]
        return {name: [photo[name] for photo in photos] for name in photos[0]}

    def _photo(self, number: int, generator: torch.Generator) -> dict[str, Tensor]:
        views = self._views.draw(number, self._sampler.draw_photo(number, generator), generator)
        distractors = torch.randperm(len(self._lexicon.imagenet), generator=generator)[: self._sizes.distractors]
        words = self._rows[number][:-1]
        words = words[words != UNLABELLED].unique()
        place = torch.full((len(self._lexicon.words) + 1,), UNLABELLED)
        place[words] = torch.arange(len(words))  # the last entry stays UNLABELLED, and is what -1 looks up
        labels = place[self._rows[number]][views["labels"]]
        similar = self._lexicon.not_negatives(words, distractors)
        similar = torch.cat([similar[:, words], similar[:, len(self._lexicon.words) :]], 1)
        return {
            "low": views["low"],
            "high": views["high"],
            "texts": torch.cat([self._lexicon.draw(generator)[words], self._lexicon.imagenet[distractors]]),
            "labels": labels,
            "seeds": majority(labels, len(words)),
            "excluded": similar,
        }


def majority(labels: Tensor, classes: int) -> Tensor:
    """The label of more than half of the places of each cell, or UNLABELLED, int64 (Q,).

    Args:
        labels: int64 (h, w), both sides multiples of CELL; from 0 to classes - 1 or UNLABELLED.
        classes: number of classes.
    """
    shares = F.avg_pool2d((labels == torch.arange(classes)[:, None, None]).float(), CELL).flatten(1)
    most, label = shares.max(0)
    return label.masked_fill(most <= 0.5, UNLABELLED)


def _rows(source: LabelledSet, lexicon: Lexicon) -> Tensor:
    """The lexicon's row of each label, UNLABELLED for other labels, for background and, last, for IGNORE, -1."""
    rows = lexicon.index(source.names)
    rows[~torch.tensor(source.training_classes)] = UNLABELLED
    return torch.cat([rows, torch.tensor([UNLABELLED])])
