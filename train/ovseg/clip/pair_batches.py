"""Batches of mask-word pairs, preprocessed for CLIP."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise
from train.common.augmentation import draw_part
from train.common.run_folder import TrainingError
from train.common.sampling import Batch, EpochOrder, StepGenerator
from train.ovseg.pairs.shards import Pair, PairShards

SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
"""Share of a region's area that a crop keeps, and the aspect ratio of the crop: open_clip's ranges, which OVSeg was
trained with. A crop of a region that is longer than RATIO allows is its middle."""

Tokenizer = Callable[[Sequence[str]], Tensor]
"""From B words to tokens, int64 (B, 77)."""


class PairBatches:
    """A `BatchSampler` of pairs. An epoch has every pair once, except a remainder, in an order drawn for the epoch.

    Args:
        shards: the pairs.
        rows: rows of the pairs that are trained on, int64 (N,).
        size: B, the pairs of a process in a step.
        side: side of the crops in pixels.
        tokenize: turns words into tokens (B, 77).
        seed: seed of the orders.

    Attributes:
        tokenize: turns words into tokens (B, 77).
    """

    def __init__(
        self, shards: PairShards, rows: np.ndarray, size: int, side: int, tokenize: Tokenizer, seed: int
    ) -> None:
        self._shards, self._count, self._size, self._side = shards, len(rows), size, side
        self.tokenize = tokenize
        self._order = EpochOrder(rows, size, seed)

    def steps(self, processes: int) -> int:
        """The number of steps of an epoch. Raises TrainingError when there are too few pairs for one step."""
        steps = self._order.steps(processes)
        if not steps:
            raise TrainingError(
                f"There are {self._count} pairs to train on, but a step takes {self._size * processes}; "
                "collect more, or choose a smaller --batch."
            )
        return steps

    def __call__(self, generator: StepGenerator) -> Batch:
        """Crops, float32 (B, 3, S, S), masks, bool (B, S, S), and tokens, int64 (B, 77)."""
        pairs = [self._shards[row] for row in self._order.rows_of_step(generator)]
        regions = [region_of_pair(pair, self._side, generator) for pair in pairs]
        crops, masks = (torch.stack(tensors) for tensors in zip(*regions, strict=True))
        return {"crops": crops, "masks": masks, "tokens": self.tokenize([pair.word for pair in pairs])}


def region_of_pair(pair: Pair, side: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A crop, float32 (3, side, side), normalised, and its mask, bool (side, side).

    The crop is filled and resized as by `ovseg_demo.models.region_crops.masked_crops_and_masks` at inference.

    Args:
        pair: the region.
        side: side of the crop in pixels.
        generator: draws the part of the region that the crop keeps; None keeps the whole region.
    """
    mask = torch.from_numpy(pair.mask)
    crop = normalise(torch.from_numpy(pair.crop).permute(2, 0, 1), CLIP_MEAN, CLIP_STD) * mask
    if generator is not None:
        top, left, height, width = draw_part((mask.shape[0], mask.shape[1]), SCALE, RATIO, generator)
        part = np.s_[..., top : top + height, left : left + width]
        crop, mask = crop[part], mask[part]
    crop = F.interpolate(crop[None], (side, side), mode="bicubic")[0]
    mask = F.interpolate(mask[None, None].byte(), (side, side), mode="nearest")[0, 0]
    return crop, mask.bool()
