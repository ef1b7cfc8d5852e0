"""Training batches: captioned photos, each in one of its views, mirrored half of the time, with one of its captions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from train.common.sampling import Batch, StepGenerator
from train.mini.segclip.captioned_features import GRID, CaptionedFeatures


class CaptionedBatches:
    """A `BatchSampler` of B distinct photos; the tensors are those of `CaptionedFeatures`, with one caption each.

    Args:
        views: of the same photos, in the same order.
        batch: B.
    """

    def __init__(self, views: Sequence[CaptionedFeatures], batch: int) -> None:
        self._views, self._batch = views, batch

    def __call__(self, generator: StepGenerator) -> Batch:
        view = self._views[int(torch.randint(len(self._views), (), generator=generator))]
        photos, captions = view.captions.shape[:2]
        rows = torch.randperm(photos, generator=generator)[: self._batch]
        caption = torch.randint(captions, (len(rows),), generator=generator)
        mirrored = torch.rand(len(rows), generator=generator) < 0.5
        superpixels = view.superpixels[rows].unflatten(1, (GRID, GRID))
        return {
            "anchors": _mirrored(view.anchors[rows], mirrored),
            "coarse": _mirrored(view.coarse[rows], mirrored),
            "last": _mirrored(view.last[rows], mirrored),
            "superpixels": _mirrored(superpixels, mirrored).flatten(1),
            "captions": view.captions[rows, caption],
        }


def _mirrored(maps: Tensor, which: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)
