"""The layout of a photo's windows, and the interpolation from their patches to pixels as two matrices.

NACLIP and SegCLIP read a photo in windows of the size that CLIP was trained with, averaged where they overlap. NACLIP
enlarges the cosines of each window bilinearly to the window's pixels, averages them, and enlarges the result to the
photo. All three steps are linear and separable, so one matrix for each axis performs them together, and no map of the
resized photo's size is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.clip.positions import Grid
from ovseg_demo.runtime.preprocess import scaled_size, window_starts

WINDOW = 224
"""Pixels a side of a window, as both have published."""

LONGEST = 2048
"""At most so many pixels of the longer side after resizing, as both have published."""


@dataclass(frozen=True)
class Axis:
    """The windows along one axis of a resized photo.

    Attributes:
        length: pixels of the resized photo.
        starts: the first pixel of each window.
        window: pixels of a window, the same for all.
        patches: whole patches of a window.
    """

    length: int
    starts: tuple[int, ...]
    window: int
    patches: int

    @classmethod
    def cut(cls, length: int, stride: int | None, patch: int) -> "Axis":
        """The windows on an axis of `length` pixels, of which there is at least one patch of `patch` pixels.

        Args:
            length: pixels.
            stride: pixels from one window of WINDOW pixels to the next. With None, or on an axis shorter than WINDOW,
                a single window covers the axis.
            patch: pixels of a patch.
        """
        window = length if stride is None else min(WINDOW, length)
        starts = (0,) if stride is None else tuple(window_starts(length, window, stride))
        return cls(length, starts, window, window // patch)

    def to_pixels(self, size: int) -> Tensor:
        """Interpolation weights (windows * patches, size) from the patches of all windows to `size` pixels.

        Each of the two steps is bilinear interpolation without aligned corners.
        """
        weights = torch.zeros(len(self.starts), self.patches, self.length)
        of_window = _linear(torch.eye(self.patches), self.window)
        for each, start in zip(weights, self.starts, strict=True):
            each[:, start : start + self.window] = of_window
        weights /= weights.sum((0, 1))  # at each pixel the number of windows over it
        return _linear(weights.flatten(0, 1), size)


@dataclass(frozen=True)
class WindowLayout:
    """The windows of a resized photo: every combination of a window along the height and one along the width."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, size: tuple[int, int], short_side: int, stride: int | None, patch: int) -> "WindowLayout":
        """The windows of a photo.

        Args:
            size: (H, W) of the photo in pixels.
            short_side: pixels of the shorter side after resizing; less where the longer one would exceed LONGEST.
            stride: see `Axis.cut`.
            patch: pixels of a patch. No side is resized to less, which changes the aspect ratio of narrow photos.
        """
        height, width = (max(patch, length) for length in scaled_size(size, short_side, LONGEST))
        return cls(Axis.cut(height, stride, patch), Axis.cut(width, stride, patch))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the resized photo in pixels."""
        return self.rows.length, self.columns.length

    @property
    def grid(self) -> Grid:
        """The patches of one window."""
        return self.rows.patches, self.columns.patches

    @cached_property
    def count(self) -> int:
        """The number of windows."""
        return len(self.rows.starts) * len(self.columns.starts)

    def areas(self) -> Iterator[tuple[slice, slice]]:
        """The rows and columns of each window in the resized photo, in reading order."""
        for top in self.rows.starts:
            for left in self.columns.starts:
                yield slice(top, top + self.rows.window), slice(left, left + self.columns.window)

    def cut(self, pixels: Tensor) -> Iterator[Tensor]:
        """The windows (3, h, w) of the pixels (3, H, W) of the resized photo, in reading order."""
        for rows, columns in self.areas():
            yield pixels[:, rows, columns]

    def assemble(self, maps: Tensor) -> Tensor:
        """One map (K, rows of windows * h, columns of windows * w) of the maps of all windows, (windows, h * w, K)."""
        high, wide = len(self.rows.starts), len(self.columns.starts)
        apart = maps.view(high, wide, *self.grid, -1)
        return apart.permute(4, 0, 2, 1, 3).reshape(-1, high * self.grid[0], wide * self.grid[1])


def _linear(rows: Tensor, length: int) -> Tensor:
    """Rows (R, L) interpolated to another length, without aligned corners."""
    return F.interpolate(rows[None], length, mode="linear", align_corners=False)[0]
