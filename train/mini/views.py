"""Training views of regions and photos: crops along masks as the demo cuts them, and disturbed ones."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.datasets.base import IGNORE
from ovseg_demo.models.mini.model import CROP_SIDE
from ovseg_demo.models.mini.towers import MEAN, STD
from train.common.image_sets import resize_labels


@dataclass(frozen=True)
class RegionView:
    """How a region is cut out.

    Attributes:
        margin: added on each side of the tight box, in its width and height.
        surroundings: brightness of what is outside the mask; 0 is OVSeg's fill with the mean colour.
        flipped: left and right swapped.
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
"""The first is the demo's own, the third its view in context; the others are variations of these two."""

PHOTO_VIEWS = ((1.0, False), (0.8, True))
"""Share of the width and height that is kept, and whether it is flipped."""


def region_view(image: np.ndarray, mask: np.ndarray, view: RegionView) -> Tensor:
    """A crop, float32 (1, 3, SIZE, SIZE), normalised.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W), not empty.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (top, bottom), (left, right) = _widened(rows, view.margin, len(mask)), _widened(columns, view.margin, mask.shape[1])
    crop = _normalised(image[top:bottom, left:right])
    inside = torch.from_numpy(mask[top:bottom, left:right]).float()
    return _resized(crop * (inside + (1 - inside) * view.surroundings), view.flipped)


def photo_view(image: np.ndarray, share: float, flipped: bool, generator: torch.Generator) -> Tensor:
    """A view of a whole photo, float32 (1, 3, SIZE, SIZE): a window of `share` of its sides, at random."""
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
        image: uint8 (H, W, 3).
        labels: int32 (H, W).
        side: of the window, in pixels.
        scales: the least and the most pixels of the photo's longest side.

    Returns:
        float32 (1, 3, side, side), normalised and zero beyond the photo; labels (side, side), IGNORE there.
    """
    longest = int(torch.randint(scales[0], scales[1] + 1, (), generator=generator))
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
    first, last = int(occupied[0]), int(occupied[-1]) + 1
    extra = round((last - first) * margin)
    return max(0, first - extra), min(length, last + extra)


def _normalised(image: np.ndarray) -> Tensor:
    """float32 (1, 3, H, W)."""
    return ((torch.from_numpy(image).float() - MEAN) / STD).permute(2, 0, 1)[None]


def _resized(crop: Tensor, flipped: bool) -> Tensor:
    crop = F.interpolate(crop, (CROP_SIDE, CROP_SIDE), mode="bicubic", antialias=True)
    return crop.flip(3) if flipped else crop
