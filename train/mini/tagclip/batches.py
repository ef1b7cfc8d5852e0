"""Batches of windows of one set, with the words of its seen classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.models.mini.towers import TextTower
from ovseg_demo.vocabulary import readable_text
from train.common.image_sets import LabelledSet
from train.common.labelled_batches import BACKGROUND
from train.common.sampling import Batch
from train.mini.tagclip.windows import MAPS
from train.tagclip.losses import UNSEEN


@dataclass(frozen=True)
class SplitSet:
    """A labelled set whose classes are split into seen and unseen ones.

    Attributes:
        source: the photos.
        unseen: names of the unseen classes of the set; their masks are never a target of the masks of classes.
    """

    source: LabelledSet
    unseen: tuple[str, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of the seen classes, in the order of the rows of the labels."""
        named = zip(self.source.names, self.source.training_classes, strict=True)
        return tuple(name for name, trained in named if trained and name not in self.unseen)

    def rows(self) -> Tensor:
        """For each label its row in `seen`, UNSEEN or BACKGROUND, int64 (C + 1,); the last is for IGNORE, -1."""
        seen = {name: row for row, name in enumerate(self.seen)}
        rows = [seen.get(name, UNSEEN if name in self.unseen else BACKGROUND) for name in self.source.names]
        return torch.tensor([*rows, -1])


class WindowBatches:
    """A `BatchSampler` of windows: "anchors", "coarse", "fine" as `MiniAdapter` takes them, "labels", int64 (B, h, w).

    Args:
        views: features of the windows of the set, an element of `WindowFeatures.sets`.
        rows: the new label of each label of the set, see `SplitSet.rows`.
        batch: B, the number of windows.
    """

    def __init__(self, views: dict[str, Tensor], rows: Tensor, batch: int) -> None:
        self._views, self._rows, self._batch = views, rows, batch

    def __call__(self, generator: torch.Generator) -> Batch:
        photos, count = self._views["labels"].shape[:2]
        photo, view = (torch.randint(number, (self._batch,), generator=generator) for number in (photos, count))
        mirrored = torch.rand(self._batch, generator=generator) < 0.5
        drawn = {name: _mirrored(self._views[name][photo, view], mirrored) for name in (*MAPS, "labels")}
        labels = self._rows[drawn["labels"].long()]
        return {**{name: drawn[name].float() for name in MAPS}, "labels": labels}


def embed_class_names(tower: TextTower, names: tuple[str, ...]) -> Tensor:
    """Text embeddings of class names, unit vectors (len(names), 384), on the CPU.

    Args:
        tower: the text tower.
        names: the names, which are read as the demo reads them (`readable_text`).
    """
    return tower([readable_text(name) for name in names]).cpu().clone()


def _mirrored(maps: Tensor, which: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)
