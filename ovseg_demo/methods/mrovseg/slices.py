"""A photo in views of one size: overlapping or adjoining slices, and the whole photo made as small as a slice.

Section 3.3 of the paper: a photo is cut to slices of a share p of its sides, and its resized whole is the global view.
All views have the size of CLIP's input, and their maps are put together to one map of the photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.clip.positions import Grid


def padded_length(length: int, patch: int) -> int:
    """The least length, in pixels, of which both halves have whole patches, and that is not below `length`."""
    return ceil(length / (2 * patch)) * 2 * patch


def pad_to_slices(pixels: Tensor, patch: int) -> Tensor:
    """Normalised pixels (..., H, W) with zeros on the right and below, so that both sides are a `padded_length`.

    Zero is CLIP's mean colour, as detectron2 pads its batches.
    """
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, padded_length(width, patch) - width, 0, padded_length(height, patch) - height))


@dataclass(frozen=True)
class Slicing:
    """Where the slices of a padded photo lie: two along each axis, or one where p is 1.

    Attributes:
        size: (H, W) of the padded photo in pixels.
        window: (h, w) of a slice in pixels.
        patch: pixels a side of CLIP's patches.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    patch: int

    @classmethod
    def of(cls, size: tuple[int, int], patch: int, ratio: float = 0.5) -> "Slicing":
        """The slices of a photo.

        Args:
            size: (H, W) in pixels, both a `padded_length`.
            patch: pixels a side of CLIP's patches.
            ratio: p, side of a slice as a share of the photo's side, 0.5 to 1; rounded up to whole patches.

        Raises ValueError for a photo without whole patches in both halves.
        """
        if any(length <= 0 or length % (2 * patch) for length in size):
            raise ValueError(f"A photo of {size[0]} x {size[1]} pixels must be padded to multiples of {2 * patch}.")
        height, width = (ceil(round(ratio * length / patch, 6)) * patch for length in size)
        return cls(size, (height, width), patch)

    @property
    def grid(self) -> Grid:
        """The patches of a slice, and of the global view."""
        return self.window[0] // self.patch, self.window[1] // self.patch

    @property
    def whole_grid(self) -> Grid:
        """The patches of the photo."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @cached_property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """The top left pixel of every slice, in reading order."""
        tops, lefts = (sorted({0, length - window}) for length, window in zip(self.size, self.window, strict=True))
        return tuple((top, left) for top in tops for left in lefts)

    def cut(self, pixels: Tensor) -> list[Tensor]:
        """The slices, (B, 3, h, w) each, in reading order, of pixels (B, 3, H, W)."""
        height, width = self.window
        return [pixels[..., top : top + height, left : left + width] for top, left in self.corners]

    def global_view(self, pixels: Tensor) -> Tensor:
        """The photo at the size of a slice, (B, 3, h, w), of pixels (B, 3, H, W): bilinear, as in SAN."""
        if self.window == self.size:
            return pixels
        return F.interpolate(pixels, self.window, mode="bilinear", align_corners=False)

    def tile(self, maps: Sequence[Tensor]) -> Tensor:
        """One map of the photo, (B, H', W', D), from the maps of its slices, (B, h', w', D) each, in reading order.

        H', W' are the patches of the photo. Where slices overlap, their mean counts.
        """
        (height, width), first = self.grid, maps[0]
        whole = first.new_zeros(len(first), *self.whole_grid, first.shape[3])
        count = first.new_zeros(*self.whole_grid, 1)
        for (top, left), of_slice in zip(self.corners, maps, strict=True):
            row, column = top // self.patch, left // self.patch
            whole[:, row : row + height, column : column + width] += of_slice
            count[row : row + height, column : column + width] += 1
        return whole if len(self.corners) * height * width == whole.shape[1] * whole.shape[2] else whole / count


def resize_map(maps: Tensor, size: Grid) -> Tensor:
    """Maps (B, h, w, D), interpolated bilinearly without aligned corners, (B, *size, D)."""
    if maps.shape[1:3] == torch.Size(size):
        return maps
    return F.interpolate(maps.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
