"""From RGB bytes to the input of an image tower: the published normalisations and resizing rules, each once."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

CLIP_MEAN = (255 * 0.48145466, 255 * 0.4578275, 255 * 0.40821073)
CLIP_STD = (255 * 0.26862954, 255 * 0.26130258, 255 * 0.27577711)
"""CLIP's normalisation of RGB values from 0 to 255 (Radford et al. 2021): OVSeg, SED, SegCLIP, NACLIP, MROVSeg."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""ImageNet's normalisation of RGB values from 0 to 255: MaskFormer, SAM, TagCLIP and ZegCLIP."""


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised pixels, float32 (..., 3, H, W), on the device of `pixels`.

    Args:
        pixels: RGB values from 0 to 255, of any number type, (..., 3, H, W).
        mean: of each channel on the 0..255 scale.
        std: standard deviation of each channel on the 0..255 scale.
    """
    means, deviations = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (mean, std))
    return (pixels - means) / deviations


def normalise_image(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An image, uint8 (H, W, 3), as a normalised batch of one, float32 (1, 3, H, W); `mean`, `std` as `normalise`."""
    return normalise(torch.from_numpy(image).permute(2, 0, 1)[None], mean, std)


def scaled_size(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """The size (height, width) whose shorter side is `shortest`, or whose longer side is `longest` if that is smaller.

    Detectron2's ResizeShortestEdge: the aspect ratio is kept up to rounding to the nearest pixel; no side is below 1.

    Args:
        size: (height, width) before resizing, in pixels.
        shortest: wanted pixels of the shorter side.
        longest: at most as many pixels of the longer side.

    Example:
        >>> scaled_size((480, 640), shortest=640, longest=2560)
        (640, 853)
    """
    height, width = size
    scale = shortest / min(size)
    # The shorter side is not multiplied, so that rounding falls as in Detectron2's ResizeShortestEdge.
    sides = (shortest, width * scale) if height < width else (height * scale, shortest)
    shrink = min(1.0, longest / max(sides))
    return max(1, int(sides[0] * shrink + 0.5)), max(1, int(sides[1] * shrink + 0.5))


def window_starts(length: int, side: int, stride: int) -> list[int]:
    """Where the windows along one axis of an image begin, in pixels, ascending.

    mmsegmentation's sliding window: the last window is shifted back into the image.

    Args:
        length: of the axis, at least `side`.
        side: of the windows.
        stride: from one window to the next, at most `side`.

    Example:
        >>> window_starts(400, side=224, stride=112)
        [0, 112, 176]
    """
    last = length - side
    return [min(start, last) for start in range(0, last + stride, stride)]


def resize_smoothed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image, uint8 (H, W, 3), at another `size` (height, width), by Pillow's bilinear filter.

    Detectron2's rule (MaskFormer, OVSeg, SED) and SAM's: the filter grows with the factor of shrinking, so it smooths.
    """
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_unsmoothed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image, uint8 (H, W, 3), at another `size` (height, width), by OpenCV's bilinear interpolation.

    mmsegmentation's rule (TagCLIP, SegCLIP, NACLIP): each pixel comes from its four neighbours, however much the image
    shrinks.
    """
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def resize_to_square(pixels: Tensor, side: int) -> Tensor:
    """Pixels, float32 (B, 3, H, W), stretched to (B, 3, side, side): bilinear, without smoothing, as in SED."""
    return F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False)
