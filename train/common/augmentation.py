"""Augmentation of labelled photos: scaled, cropped, colour-distorted, mirrored and padded to a square.

The order and the ranges are those that MaskFormer (Cheng et al. 2021), OVSeg (Liang et al. 2023, section 4.1), SED
(Xie et al. 2024) and TagCLIP (Li et al.) were trained with; the sizes of the scaled photos and of the crop
differ between the methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from eval.datasets.base import IGNORE
from ovseg_demo.result import resize_labels
from ovseg_demo.runtime.preprocess import resize_smoothed, scaled_size

_ATTEMPTS = 10
"""How often another crop is drawn while one class has too large a share of it."""

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 18
"""SSD's ranges (Liu et al. 2016): grey levels that are added; factors on contrast and saturation; hue in steps of two
degrees."""


@dataclass(frozen=True)
class AugmentationSettings:
    """Sizes of augmented photos.

    Attributes:
        side: side of the square crop in pixels, a multiple of 32.
        shortest: shorter sides of the scaled photo in pixels, of which one is drawn.
        longest: longest side of the scaled photo in pixels; where it would be exceeded, the photo is scaled less.
        largest_share: largest share, 0 to 1, of the labelled pixels that one class may take; otherwise another crop is
            drawn, at most ten times.
        fill: colour that pads photos smaller than the crop, RGB from 0 to 255.
    """

    side: int
    shortest: Sequence[int]
    longest: int
    largest_share: float = 1.0
    fill: tuple[int, int, int] = (128, 128, 128)

    def draw_size(self, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int]:
        """The (height, width) that a photo of this (height, width) is scaled to."""
        shortest = self.shortest[_draw_integer(0, len(self.shortest) - 1, generator)]
        return scaled_size(size, shortest, self.longest)


@dataclass(frozen=True)
class RelativeAugmentation:
    """Sizes of augmented photos that are scaled in proportion to their own size.

    Attributes:
        side: side of the square crop in pixels.
        factors: the least and the greatest factor on the height and width of the photo; all between are equally likely.
        largest_share: as of `AugmentationSettings`.
        fill: as of `AugmentationSettings`.
    """

    side: int
    factors: tuple[float, float]
    largest_share: float = 1.0
    fill: tuple[int, int, int] = (128, 128, 128)

    def draw_size(self, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int]:
        """The (height, width) that a photo of this (height, width) is scaled to."""
        factor = _draw_uniform(*self.factors, generator)
        height, width = (max(1, round(length * factor)) for length in size)
        return height, width


Augmentation = AugmentationSettings | RelativeAugmentation


def augment(
    photo: np.ndarray, labels: np.ndarray, settings: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A randomly augmented photo and its labels, uint8 (3, side, side) and int64 (side, side).

    Args:
        photo: uint8 (H, W, 3), RGB.
        labels: int32 (H, W); the padding of the photo gets IGNORE.
        settings: sizes of augmented photos.
        generator: source of all randomness.
    """
    size = settings.draw_size(labels.shape, generator)
    photo, labels = resize_smoothed(photo, size), resize_labels(labels, size)
    crop = _draw_crop(labels, settings, generator)
    photo, labels = distort_colours(photo[crop], generator), labels[crop]
    if _draw_bool(generator):
        photo, labels = photo[:, ::-1], labels[:, ::-1]
    return _padded(photo, labels, settings)


def whole_view(photo: np.ndarray, labels: np.ndarray, settings: Augmentation) -> tuple[Tensor, Tensor]:
    """The whole photo, its longer side scaled to `settings.side`, and its labels, without anything random.

    Arguments and results as of `augment`.
    """
    size = scaled_size(labels.shape, settings.side, settings.side)
    return _padded(resize_smoothed(photo, size), resize_labels(labels, size), settings)


def draw_part(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a random part of an image, as torchvision's RandomResizedCrop draws it.

    Args:
        size: (height, width) of the image.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width divided by height; of an image that has no such part it is the middle.
        generator: source of all randomness.
    """
    with torch.random.fork_rng(devices=[]):  # torchvision takes no generator
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return RandomResizedCrop.get_params(torch.empty(1, *size, device="meta"), list(scale), list(ratio))


def _padded(photo: np.ndarray, labels: np.ndarray, settings: Augmentation) -> tuple[Tensor, Tensor]:
    """A photo and its labels, filled up on the right and below to a square, as tensors."""
    padding = [(0, settings.side - side) for side in labels.shape]
    padded = np.full((settings.side, settings.side, 3), settings.fill, np.uint8)
    padded[: photo.shape[0], : photo.shape[1]] = photo
    labels = np.pad(labels, padding, constant_values=IGNORE)
    return torch.from_numpy(padded).movedim(2, 0).contiguous(), torch.from_numpy(labels.astype(np.int64))


def _draw_crop(labels: np.ndarray, settings: Augmentation, generator: torch.Generator) -> tuple[slice, slice]:
    """The rows and columns of a random crop of a photo with these labels."""
    crop = _random_crop(labels.shape, settings.side, generator)
    if settings.largest_share < 1:
        for _ in range(_ATTEMPTS):
            if _is_varied(labels[crop], settings.largest_share):
                break
            crop = _random_crop(labels.shape, settings.side, generator)
    return crop


def _random_crop(size: Sequence[int], side: int, generator: torch.Generator) -> tuple[slice, slice]:
    top, left = (_draw_integer(0, max(0, length - side), generator) for length in size)
    return np.s_[top : top + side, left : left + side]


def _is_varied(labels: np.ndarray, largest: float) -> bool:
    """Whether there are several classes, and none has more than the share `largest` of their pixels."""
    counts = np.bincount(labels[labels >= 0])
    return bool(np.count_nonzero(counts) > 1 and counts.max() < largest * counts.sum())


def distort_colours(photo: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """A photo with randomly changed colours (SSD, Liu et al. 2016, section 2.2), uint8 (H, W, 3).

    Each of four changes is made half of the time; contrast comes before or after saturation and hue. torchvision's
    RandomPhotometricDistort is like it, but there brightness is a factor, contrast is about the mean and the hue turns
    half as far; here brightness is a sum and contrast about black, as in SSD.

    Args:
        photo: uint8 (H, W, 3), RGB.
        generator: source of all randomness.
    """
    if _draw_bool(generator):
        photo = _scale_and_add(photo, 1.0, _draw_uniform(-_BRIGHTNESS, _BRIGHTNESS, generator))
    if contrast_first := _draw_bool(generator):
        photo = _change_contrast(photo, generator)
    if _draw_bool(generator):
        factor = _draw_uniform(*_SATURATION, generator)
        photo = _change_hsv_channel(photo, 1, lambda saturation: _scale_and_add(saturation, factor, 0.0))
    if _draw_bool(generator):
        rotation = _draw_integer(-_HUE, _HUE, generator)
        photo = _change_hsv_channel(photo, 0, lambda hue: (hue.astype(np.int16) + rotation) % 180)
    return photo if contrast_first else _change_contrast(photo, generator)


def _change_contrast(photo: np.ndarray, generator: torch.Generator) -> np.ndarray:
    return _scale_and_add(photo, _draw_uniform(*_CONTRAST, generator), 0.0) if _draw_bool(generator) else photo


def _scale_and_add(values: np.ndarray, factor: float, added: float) -> np.ndarray:
    return (values.astype(np.float32) * factor + added).clip(0, 255).astype(np.uint8)


def _change_hsv_channel(photo: np.ndarray, channel: int, change) -> np.ndarray:
    converted = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV)
    converted[..., channel] = change(converted[..., channel])
    return cv2.cvtColor(converted, cv2.COLOR_HSV2RGB)


def _draw_bool(generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < 0.5)


def _draw_integer(low: int, high: int, generator: torch.Generator) -> int:
    """From low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _draw_uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
