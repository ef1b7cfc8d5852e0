"""Training views of regions and photos: crops along masks as in the demo, and augmented ones."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.datasets.base import IGNORE
from ovseg_demo.models.mini.model import CROP_SIDE
from ovseg_demo.models.mini.towers import MEAN, STD
from ovseg_demo.result import resize_labels


@dataclass(frozen=True)
class RegionView:
    """How a region is cropped.

    Attributes:
        margin: what is added on each side of the tight box, as a share of the box's width and height.
        surroundings: factor on the normalised pixels outside the mask, 0 to 1; 0 is OVSeg's fill with the mean colour.
        flipped: whether left and right are swapped.
    """

    margin: float
    surroundings: float
    flipped: bool


REGION_VIEWS = (
    RegionView(0, 0, False),
    RegionView(0.05, 0, True),
    RegionView(0.1, 0.3, False),
    RegionView(0.2, 0.3, True),
)
"""The first is the demo's view of a region, the third its view in context; the others are variations of these two."""

PHOTO_VIEWS = ((1.0, False), (0.8, True))
"""Share of the width and height that is kept, and whether it is flipped."""


def region_view(image: np.ndarray, mask: np.ndarray, view: RegionView) -> Tensor:
    """A crop of a region, float32 (1, 3, CROP_SIDE, CROP_SIDE), normalised.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: bool (H, W), not empty.
        view: how the region is cropped.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (top, bottom), (left, right) = _widened(rows, view.margin, len(mask)), _widened(columns, view.margin, mask.shape[1])
    crop = _normalised(image[top:bottom, left:right])
    inside = torch.from_numpy(mask[top:bottom, left:right]).float()
    return _resized(crop * (inside + (1 - inside) * view.surroundings), view.flipped)


def photo_view(image: np.ndarray, share: float, flipped: bool, generator: torch.Generator) -> Tensor:
    """A random window of a photo, float32 (1, 3, CROP_SIDE, CROP_SIDE), normalised.

    Args:
        image: uint8 (H, W, 3), RGB.
        share: share of the width and the height that the window keeps, 0 to 1.
        flipped: whether left and right are swapped.
        generator: source of all randomness.
    """
    sides = [max(1, round(side * share)) for side in image.shape[:2]]
    top, left = (
        int(torch.randint(whole - side + 1, (), generator=generator))
        for whole, side in zip(image.shape[:2], sides, strict=True)
    )
    return _resized(_normalised(image[top : top + sides[0], left : left + sides[1]]), flipped)


def random_window(
    image: np.ndarray, labels: np.ndarray, side: int, scales: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, np.ndarray]:
    """A square window of a photo at a random scale, flipped half of the time.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: int32 (H, W).
        side: side of the window in pixels.
        scales: smallest and largest longest side of the scaled photo, in pixels.
        generator: source of all randomness.

    Returns:
        The window, float32 (1, 3, side, side), normalised and zero beyond the photo, and its labels,
        int32 (side, side), IGNORE beyond the photo.
    """
    draw = float(torch.rand((), generator=generator))
    longest = round(scales[0] * (scales[1] / scales[0]) ** draw)  # doubling a size is as likely at every size
    height, width = (max(1, round(length * longest / max(labels.shape))) for length in labels.shape)
    size = height, width
    pixels = F.interpolate(_normalised(image), size, mode="bicubic", antialias=True)
    labels = np.pad(
        resize_labels(labels, size), [(0, max(0, side - length)) for length in size], constant_values=IGNORE
    )
    pixels = F.pad(pixels, (0, max(0, side - size[1]), 0, max(0, side - size[0])))
    top, left = (int(torch.randint(max(0, length - side) + 1, (), generator=generator)) for length in size)
    pixels, labels = pixels[..., top : top + side, left : left + side], labels[top : top + side, left : left + side]
    if torch.rand((), generator=generator) < 0.5:
        return pixels.flip(3), labels[:, ::-1].copy()
    return pixels, labels


def _widened(occupied: np.ndarray, margin: float, length: int) -> tuple[int, int]:
    """First and last (exclusive) of the occupied rows or columns, with a margin, within `length` rows or columns."""
    first, last = int(occupied[0]), int(occupied[-1]) + 1
    extra = round((last - first) * margin)
    return max(0, first - extra), min(length, last + extra)


def _normalised(image: np.ndarray) -> Tensor:
    """float32 (1, 3, H, W)."""
    return ((torch.from_numpy(image).float() - MEAN) / STD).permute(2, 0, 1)[None]


def _resized(crop: Tensor, flipped: bool) -> Tensor:
    crop = F.interpolate(crop, (CROP_SIDE, CROP_SIDE), mode="bicubic", antialias=True)
    return crop.flip(3) if flipped else crop
