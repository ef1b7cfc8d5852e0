"""Training batches of the decoder: labelled photos, each with a randomly drawn vocabulary.

The vocabulary stays open because every step draws other words: a few or many classes of a set, among them most classes
in the photo, in varied wordings, and names of ImageNet classes that nobody labelled. One photo in ten has a single
word, as a user may type.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.methods.sed.mini import MiniCostMaps
from train.common.image_sets import LabelledSet
from train.common.sampling import Batch, SetSampler
from train.mini.lexicon import Lexicon
from train.mini.sed.multi_scale_views import MultiScaleViews

_UNLABELLED = -1


@dataclass(frozen=True)
class BatchSizes:
    """The size of a batch, and how vocabularies are drawn.

    Attributes:
        views: photos in a batch.
        words: smallest and largest number of words of a photo; the number is drawn log-uniformly.
        distractors: largest number of ImageNet names among the words.
        dropped: share of the classes in a photo that are left out of its words, 0 to 1.
        single: share of photos with a single word, 0 to 1.
    """

    views: int = 4
    words: tuple[int, int] = (3, 32)
    distractors: int = 6
    dropped: float = 0.1
    single: float = 0.1


class CostMapBatches:
    """A `BatchSampler` of photos; sets are drawn by `SetSampler`.

    A batch has lists with an element for each photo, whose vocabulary has T classes: "cost", float32 (T, P, h, w);
    "skips", three maps; "targets", float32 (T, 8h, 8w), 1 where a place is of the class and 0 elsewhere; "counted",
    bool (T, 8h, 8w), where the target is known.

    Args:
        labelled: the sets.
        views: features of their photos.
        lexicon: text embeddings of their words.
        costs: computes cost maps of features.
        sizes: the size of a batch.
    """

    def __init__(
        self,
        labelled: Sequence[LabelledSet],
        views: MultiScaleViews,
        lexicon: Lexicon,
        costs: MiniCostMaps,
        sizes: BatchSizes,
    ) -> None:
        self._views, self._lexicon, self._costs, self._sizes = views, lexicon, costs, sizes
        self._sampler = SetSampler([len(source.dataset) for source in labelled], [len(s.names) for s in labelled])
        self._none = len(lexicon.words)  # the row of background
        self._rows = [_rows(source, lexicon, self._none) for source in labelled]
        self._related_names = lexicon.not_negatives(torch.arange(self._none), torch.arange(len(lexicon.imagenet)))
        self._related_names = self._related_names[:, self._none :]

    def __call__(self, generator: torch.Generator) -> Batch:
        views = [self._view(generator) for _ in range(self._sizes.views)]
        return {name: [view[name] for view in views] for name in ("cost", "skips", "targets", "counted")}

    def _view(self, generator: torch.Generator) -> Batch:
        [set_number] = self._sampler.draw_sets(1, generator)
        photo, labels = self._views.draw(set_number, self._sampler.draw_photo(set_number, generator), generator)
        row_of_place = self._rows[set_number][labels]
        texts = self._lexicon.draw(generator)
        single = torch.rand((), generator=generator) < self._sizes.single
        draw_classes = self._single_word if single else self._many_words
        classes, targets, counted = draw_classes(set_number, row_of_place, texts, generator)
        return {
            "cost": self._costs.cost_map(photo, classes).clone(),  # tensors of inference mode cannot be learnt from
            "skips": [level.clone() for level in self._costs.skips(photo)],
            "targets": targets.float(),
            "counted": counted,
        }

    def _many_words(
        self, set_number: int, row_of_place: Tensor, texts: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Text embeddings of T classes (T, 1, 384), words of the set and then ImageNet names; targets; what counts."""
        sizes = self._sizes
        low, high = (torch.tensor(float(number)).log() for number in sizes.words)
        wanted = int((low + (high - low) * torch.rand((), generator=generator)).exp().round())
        present, absent = self._present_and_absent_rows(set_number, row_of_place)
        present = present[torch.rand(len(present), generator=generator) >= sizes.dropped]
        distractors = int(torch.randint(min(sizes.distractors, wanted // 2) + 1, (), generator=generator))
        rows = torch.cat([_shuffled(present, generator), _shuffled(absent, generator)])[: max(1, wanted - distractors)]
        names = torch.randperm(len(self._lexicon.imagenet), generator=generator)[:distractors]
        known = row_of_place != _UNLABELLED
        named = known & (row_of_place != self._none)  # background may show anything that ImageNet knows
        unlike = ~self._related_names[:, names][row_of_place.clamp(0, self._none - 1)].movedim(-1, 0)
        targets = torch.cat([row_of_place == rows[:, None, None], torch.zeros_like(unlike)])
        counted = torch.cat([known.expand(len(rows), -1, -1), named & unlike])
        return torch.cat([texts[rows], self._lexicon.imagenet[names]])[:, None], targets, counted

    def _single_word(
        self, set_number: int, row_of_place: Tensor, texts: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """As `_many_words`, for one word, usually of a class in the photo."""
        present, absent = self._present_and_absent_rows(set_number, row_of_place)
        draw_absent = torch.rand((), generator=generator) < self._sizes.dropped or not len(present)
        row = _shuffled(absent if draw_absent and len(absent) else present, generator)[:1]
        return texts[row][:, None], (row_of_place == row)[None], (row_of_place != _UNLABELLED)[None]

    def _present_and_absent_rows(self, set_number: int, row_of_place: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the words of a set that are in the photo, and rows of the set's other words."""
        rows = self._rows[set_number].unique()
        rows = rows[(rows != _UNLABELLED) & (rows != self._none)]
        present = torch.isin(rows, row_of_place)
        return rows[present], rows[~present]


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def _rows(source: LabelledSet, lexicon: Lexicon, none: int) -> Tensor:
    """The lexicon's row of each label, `none` for background and, last, _UNLABELLED for IGNORE, -1."""
    rows = lexicon.index(source.names)
    if source.dataset.background is not None:
        rows[source.dataset.background] = none
    return torch.cat([rows, torch.tensor([_UNLABELLED])])
