"""Training batches of the decoder: labelled photos, each with a randomly drawn vocabulary.

The vocabulary stays open because every step draws other words: a few or many of the classes of a set, most of those in
the photo among them, in varied wordings, and names of ImageNet classes that nobody labelled. One photo in ten has a
single word, as a user may type, with the mini model's background prompts as its negatives.
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

_UNKNOWN = -1


@dataclass(frozen=True)
class BatchSizes:
    """How much is drawn a step.

    Attributes:
        views: photos in a batch.
        words: smallest and largest number of words of a photo; the number is log-uniform.
        distractors: largest number of ImageNet names among the words.
        dropped: share of the classes in the photo that are left out of its words.
        single: share of photos with a single word and its background prompts.
    """

    views: int = 4
    words: tuple[int, int] = (3, 32)
    distractors: int = 6
    dropped: float = 0.1
    single: float = 0.1


class CostMapBatches:
    """A `BatchSampler` of photos; sets are drawn by `SetSampler`.

    A batch has lists over its views, of T classes each: "cost", float32 (T, P, h, w); "skips", three maps; "targets",
    float32 (T, 8h, 8w), 1 where a place is of the class and 0 elsewhere; "counted", bool of the same shape, where that
    is known.
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
        self._none = len(lexicon.words)
        self._rows = [_rows(source, lexicon, self._none) for source in labelled]
        self._related_names = lexicon.not_negatives(torch.arange(self._none), torch.arange(len(lexicon.imagenet)))
        self._related_names = self._related_names[:, self._none :]

    def __call__(self, generator: torch.Generator) -> Batch:
        views = [self._view(generator) for _ in range(self._sizes.views)]
        return {name: [view[name] for view in views] for name in ("cost", "skips", "targets", "counted")}

    def _view(self, generator: torch.Generator) -> Batch:
        [which] = self._sampler.draw_sets(1, generator)
        photo, labels = self._views.draw(which, self._sampler.draw_photo(which, generator), generator)
        places = self._rows[which][labels]
        texts = self._lexicon.draw(generator)
        single = torch.rand((), generator=generator) < self._sizes.single
        ask = self._one if single else self._many
        classes, targets, counted = ask(which, places, texts, generator)
        return {
            "cost": self._costs.cost_map(photo, classes).clone(),  # tensors of inference mode cannot be learnt from
            "skips": [level.clone() for level in self._costs.skips(photo)],
            "targets": targets.float(),
            "counted": counted,
        }

    def _many(self, which: int, places: Tensor, texts: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Texts of classes (T, 1, 384), targets and what counts: words of the set, then names of ImageNet."""
        sizes = self._sizes
        low, high = (torch.tensor(float(number)).log() for number in sizes.words)
        wanted = int((low + (high - low) * torch.rand((), generator=generator)).exp().round())
        shown, others = self._shown_and_other_rows(which, places)
        shown = shown[torch.rand(len(shown), generator=generator) >= sizes.dropped]
        distractors = int(torch.randint(min(sizes.distractors, wanted // 2) + 1, (), generator=generator))
        rows = torch.cat([_shuffled(shown, generator), _shuffled(others, generator)])[: max(1, wanted - distractors)]
        names = torch.randperm(len(self._lexicon.imagenet), generator=generator)[:distractors]
        known = places != _UNKNOWN
        named = known & (places != self._none)  # background may show anything that ImageNet knows
        unlike = ~self._related_names[:, names][places.clamp(0, self._none - 1)].movedim(-1, 0)
        targets = torch.cat([places == rows[:, None, None], torch.zeros_like(unlike)])
        counted = torch.cat([known.expand(len(rows), -1, -1), named & unlike])
        return torch.cat([texts[rows], self._lexicon.imagenet[names]])[:, None], targets, counted

    def _one(self, which: int, places: Tensor, texts: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The same for a single word, usually of a class in the photo, and its background prompts."""
        shown, others = self._shown_and_other_rows(which, places)
        absent = torch.rand((), generator=generator) < self._sizes.dropped or not len(shown)
        row = _shuffled(others if absent and len(others) else shown, generator)[:1]
        background = self._costs.embed_background_prompts([self._lexicon.words[int(row)]])
        class_indices = torch.tensor([0] + [1] * len(background))
        classes = self._costs.class_embeddings(torch.cat([texts[row], background.cpu()]), class_indices)
        known = (places != _UNKNOWN).expand(2, -1, -1)
        return classes, torch.stack([places == row, places != row]), known

    def _shown_and_other_rows(self, which: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the words of a set that are in the photo, and of its other words."""
        rows = self._rows[which].unique()
        rows = rows[(rows != _UNKNOWN) & (rows != self._none)]
        there = torch.isin(rows, places)
        return rows[there], rows[~there]


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def _rows(source: LabelledSet, lexicon: Lexicon, none: int) -> Tensor:
    """The lexicon's row of each label, `none` for background; unknown for IGNORE, -1, which is the last."""
    rows = lexicon.index(source.names)
    if source.dataset.background is not None:
        rows[source.dataset.background] = none
    return torch.cat([rows, torch.tensor([_UNKNOWN])])
