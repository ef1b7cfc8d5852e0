"""Batches of mask-word pairs as CLIP reads them."""

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
"""Share of the region's area that a crop keeps, and its aspect ratio: open_clip's, by which OVSeg was trained. Of a
region that is longer than RATIO allows it keeps the middle."""

Tokenizer = Callable[[Sequence[str]], Tensor]


class PairBatches:
    """A `BatchSampler` of pairs. An epoch goes once through all pairs, less a remainder, in an order of its own.

    Args:
        shards: the pairs.
        rows: rows of the pairs that are trained on, int64 (N,).
        size: pairs of a process in a step.
        side: side of the crops in pixels.
        text: turns words into tokens (B, 77).
        seed: seed of the orders.

    Attributes:
        text: as given.
    """

    def __init__(self, shards: PairShards, rows: np.ndarray, size: int, side: int, text: Tokenizer, seed: int) -> None:
        self._shards, self._rows, self._size, self._side = shards, rows, size, side
        self.text, self._seed = text, seed
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
        crops, masks = (torch.stack(each) for each in zip(*regions, strict=True))
        return {"crops": crops, "masks": masks, "tokens": self.text([pair.word for pair in pairs])}

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self._rows)


def region_of_pair(pair: Pair, side: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A crop, float32 (3, side, side), normalised, and its mask, bool (side, side).

    Filled and resized as `ovseg_demo.models.region_crops.masked_crops_and_masks` does at inference. With a generator, a
    random part.
    """
    inside = torch.from_numpy(pair.mask)
    crop = normalise(torch.from_numpy(pair.crop).permute(2, 0, 1), CLIP_MEAN, CLIP_STD) * inside
    if generator is not None:
        top, left, height, width = _part(inside, generator)
        place = np.s_[..., top : top + height, left : left + width]
        crop, inside = crop[place], inside[place]
    crop = F.interpolate(crop[None], (side, side), mode="bicubic")[0]
    mask = F.interpolate(inside[None, None].byte(), (side, side), mode="nearest")[0, 0]
    return crop, mask.bool()


def _part(mask: Tensor, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part; torchvision takes no generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return RandomResizedCrop.get_params(mask[None], list(SCALE), list(RATIO))
