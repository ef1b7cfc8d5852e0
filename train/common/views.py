"""Views of labelled photos: scaled, cut, recoloured, mirrored and filled up to a square.

The order and the ranges are those that MaskFormer (Cheng et al. 2021), OVSeg (Liang et al. 2023, section 4.1) and SED
(Xie et al. 2024) were trained with; each has sizes of its own.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.datasets.base import IGNORE
from ovseg_demo.image import scaled
from train.common.sources import resized

_GREY = 128
"""What photos that are smaller than the view are filled up with."""

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 18
"""SSD's ranges (Liu et al. 2016): added grey levels; factors; steps of two degrees."""


@dataclass(frozen=True)
class Views:
    """How large photos are shown.

    Attributes:
        side: of the square that is cut out, in pixels, a multiple of 32.
        shortest: the photo's shorter side in pixels; one of these, at random.
        longest: of the photo; where the longer side would exceed it, both are smaller.
    """

    side: int
    shortest: tuple[int, ...]
    longest: int


def view(photo: np.ndarray, labels: np.ndarray, views: Views, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random view of a photo with its labels, uint8 (3, side, side) and int64 (side, side).

    Args:
        photo: uint8 (H, W, 3).
        labels: int32 (H, W); beyond the photo the view has IGNORE.
    """
    shortest = views.shortest[_integer(0, len(views.shortest) - 1, generator)]
    height, width = scaled(photo.shape[:2], shortest, views.longest)
    photo = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))
    labels = resized(labels, (height, width))
    top, left = (_integer(0, max(0, side - views.side), generator) for side in (height, width))
    window = np.s_[top : top + views.side, left : left + views.side]
    photo, labels = recoloured(photo[window], generator), labels[window]
    if _coin(generator):
        photo, labels = photo[:, ::-1], labels[:, ::-1]
    missing = [(0, views.side - side) for side in labels.shape]
    photo = np.pad(photo, [*missing, (0, 0)], constant_values=_GREY)
    labels = np.pad(labels, missing, constant_values=IGNORE)
    return torch.from_numpy(photo).movedim(2, 0).contiguous(), torch.from_numpy(labels.astype(np.int64))


def recoloured(photo: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """SSD's disturbance of the colours of a photo, uint8 (H, W, 3) to the same.

    Each of four changes is made half of the time; contrast comes before or after saturation and hue. torchvision's
    RandomPhotometricDistort is like it, but there brightness is a factor, contrast is about the mean and the hue turns
    half as far; here brightness is a sum and contrast about black, as in SSD.
    """
    if _coin(generator):
        photo = _changed(photo, 1.0, _uniform(-_BRIGHTNESS, _BRIGHTNESS, generator))
    if first := _coin(generator):
        photo = _contrasted(photo, generator)
    if _coin(generator):
        factor = _uniform(*_SATURATION, generator)
        photo = _in_hsv(photo, 1, lambda saturation: _changed(saturation, factor, 0.0))
    if _coin(generator):
        turn = _integer(-_HUE, _HUE, generator)
        photo = _in_hsv(photo, 0, lambda hue: (hue.astype(np.int16) + turn) % 180)
    return photo if first else _contrasted(photo, generator)


def _contrasted(photo: np.ndarray, generator: torch.Generator) -> np.ndarray:
    return _changed(photo, _uniform(*_CONTRAST, generator), 0.0) if _coin(generator) else photo


def _changed(values: np.ndarray, factor: float, added: float) -> np.ndarray:
    return (values.astype(np.float32) * factor + added).clip(0, 255).astype(np.uint8)


def _in_hsv(photo: np.ndarray, channel: int, change) -> np.ndarray:
    converted = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV)
    converted[..., channel] = change(converted[..., channel])
    return cv2.cvtColor(converted, cv2.COLOR_HSV2RGB)


def _coin(generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < 0.5)


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """From low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
