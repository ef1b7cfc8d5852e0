"""Batches of mask-word pairs, preprocessed for CLIP."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise
from train.common.run_folder import TrainingError
from train.common.sampling import Batch, StepGenerator
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
        self._shards, self._rows, self._size, self._side = shards, rows, size, side
        self.tokenize, self._seed = tokenize, seed
        self._order = lru_cache(1)(self._shuffled)

    def steps(self, processes: int) -> int:
        """The number of steps of an epoch. Raises TrainingError when there are too few pairs for one step."""
        steps = len(self._rows) // (self._size * processes)
        if not steps:
            raise TrainingError(
                f"There are {len(self._rows)} pairs to train on, but a step takes {self._size * processes}; "
                "collect more, or choose a smaller --batch."
            )
        return steps

    def __call__(self, generator: StepGenerator) -> Batch:
        """Crops, float32 (B, 3, S, S), masks, bool (B, S, S), and tokens, int64 (B, 77)."""
        epoch, step = divmod(generator.step, self.steps(generator.processes))
        first = (step * generator.processes + generator.process) * self._size
        pairs = [self._shards[int(index)] for index in self._order(epoch)[first : first + self._size]]
        regions = [region_of_pair(pair, self._side, generator) for pair in pairs]
        crops, masks = (torch.stack(tensors) for tensors in zip(*regions, strict=True))
        return {"crops": crops, "masks": masks, "tokens": self.tokenize([pair.word for pair in pairs])}

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self._rows)


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
        top, left, height, width = _draw_part(mask, generator)
        part = np.s_[..., top : top + height, left : left + width]
        crop, mask = crop[part], mask[part]
    crop = F.interpolate(crop[None], (side, side), mode="bicubic")[0]
    mask = F.interpolate(mask[None, None].byte(), (side, side), mode="nearest")[0, 0]
    return crop, mask.bool()


def _draw_part(mask: Tensor, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part; the seed is set because torchvision takes no generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return RandomResizedCrop.get_params(mask[None], list(SCALE), list(RATIO))
