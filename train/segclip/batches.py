"""Batches of parts of photos with captions and superpixels."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset

from train.common.augmentation import draw_part
from train.common.run_folder import TrainingError
from train.common.sampling import Batch, EpochOrder, StepGenerator
from train.segclip.captioned_photos import CaptionedPhotos
from train.segclip.superpixels import SIDE, SuperpixelCache, patch_superpixels

AREA, RATIO = (0.5, 1.0), (3 / 4, 4 / 3)
"""Share of a photo's area that a part has, and the ratio of its width to its height, as published."""

LONGEST_CAPTION = 32
"""Tokens that a caption is cut to, its first and last one counted, as published."""


class CaptionBatches:
    """A `BatchSampler` of parts of photos. An epoch has every caption once, except a remainder, in an order of its own.

    A batch has "images", uint8 (B, 3, side, side), RGB; "tokens", int64 (B, LONGEST_CAPTION); and "superpixels", the
    label of each patch's superpixel, int64 (B, L).

    Args:
        sets: the photos with captions.
        superpixels: finds the superpixels of a photo.
        size: B, the pairs of a process in a step.
        side: side of the squares that parts are resized to, in pixels.
        patch: side of a patch in pixels.
        seed: seed of the orders.
    """

    def __init__(
        self,
        sets: Sequence[CaptionedPhotos],
        superpixels: SuperpixelCache,
        size: int,
        side: int,
        patch: int,
        seed: int,
    ) -> None:
        self._pairs = ConcatDataset(cast(Any, sets))
        self._superpixels, self._size, self._side, self._patch = superpixels, size, side, patch
        self._order = EpochOrder(np.arange(len(self._pairs)), size, seed)

    def steps(self, processes: int) -> int:
        """The number of steps of an epoch. Raises TrainingError when there are too few captions for one step."""
        steps = self._order.steps(processes)
        if not steps:
            raise TrainingError(
                f"There are {len(self._pairs)} captions to train on, but a step takes {self._size * processes}; "
                "choose a smaller --batch."
            )
        return steps

    def __call__(self, generator: StepGenerator) -> Batch:
        photos, captions = zip(*(self._pairs[row] for row in self._order.rows_of_step(generator)), strict=True)
        parts, superpixels = zip(*(self._drawn_part(photo, generator) for photo in photos), strict=True)
        tokens = open_clip.tokenize(list(captions), context_length=LONGEST_CAPTION)
        return {"images": torch.stack(parts), "tokens": tokens, "superpixels": torch.stack(superpixels)}

    def _drawn_part(self, photo: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random part of a photo, uint8 (3, side, side), and the superpixels of its patches, int64 (L,)."""
        photo = shrink(photo)
        top, left, height, width = draw_part((photo.shape[0], photo.shape[1]), AREA, RATIO, generator)
        part = np.s_[top : top + height, left : left + width]
        square = Image.fromarray(photo[part]).resize((self._side, self._side), Image.Resampling.BICUBIC)
        superpixels = patch_superpixels(self._superpixels(photo)[part], self._side, self._patch)
        return torch.from_numpy(np.array(square)).movedim(2, 0).contiguous(), torch.from_numpy(superpixels)


def shrink(photo: np.ndarray) -> np.ndarray:
    """A photo, uint8 (H, W, 3), whose shorter side is at most SIDE, as the released code stores photos."""
    height, width = photo.shape[:2]
    if min(height, width) <= SIDE:
        return photo
    size = (SIDE * width // height, SIDE) if width >= height else (SIDE, SIDE * height // width)
    return np.array(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))
