"""Pictures of a result: class colours, overlay, label map, heat map."""

from collections.abc import Sequence
from zlib import crc32

import cv2
import numpy as np

from ovseg_demo.result import Segmentation

UNLABELLED_COLOUR = (38, 40, 46)
OUTLINE_COLOUR = (255, 255, 255)
OPACITY = 0.55
"""Of the class colours in overlays."""

_VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
HEAT_COLOURS = cv2.cvtColor(_VIRIDIS, cv2.COLOR_BGR2RGB)[:, 0]
"""The colours of heat maps, viridis from dark to bright, RGB, uint8 (256, 3)."""

_HEAT_OPACITY = 0.7

# Thirty-two colours in three rings of OKLCH (lightness 0.68, 0.82, 0.54), hues evenly spread: vivid over any photo.
_PALETTE = np.frombuffer(
    bytes.fromhex(
        "f75c66 fdae95 c52d22 ec6f00 ffb33b 9d5d03 c58d04 cbcc3b 7d7009 9e9f10 79df83"
        "388300 4cb332 13e2cb 108169 1ab28c 3ad9fe 0f7d8b 05adb4 9cc8fe 0374b7 04a6db"
        "c3bafe 6158d8 5896fd f99dfb 9940b6 9980fe fda7bf bb2c78 ca6ae0 ea5da8"
    ),
    np.uint8,
).reshape(-1, 3)


_LAB = cv2.cvtColor((_PALETTE / np.float32(255))[None], cv2.COLOR_RGB2LAB)[0]
_DISTANCES = np.linalg.norm(_LAB[:, None] - _LAB[None], axis=2)
_DISTINCT = (60.0, 40.0, 20.0, 0.0)
"""Least distances in CIELAB between the colours of a vocabulary, tried in turn until a colour is left."""


def colours(names: Sequence[str]) -> np.ndarray:
    """One RGB colour a class, uint8 (C, 3).

    A colour follows from the name, so a class keeps it across methods and runs. If it resembles the colour of an
    earlier name of the vocabulary, the next colour of the palette that does not is taken. After every 32 classes the
    palette is used again, darker.

    Args:
        names: of the C classes.
    """
    chosen = np.empty((len(names), 3), np.uint8)
    for start in range(0, len(names), len(_PALETTE)):
        shade = 0.75 ** (start // len(_PALETTE) % 4)
        taken: list[int] = []
        for i, name in enumerate(names[start : start + len(_PALETTE)], start):
            taken.append(_palette_index(name, taken))
            chosen[i] = _PALETTE[taken[-1]] * shade
    return chosen


def _palette_index(name: str, taken: list[int]) -> int:
    """The index in the palette of the colour for a name, given the indices of the colours that are taken."""
    first = crc32(name.casefold().encode("utf-8", "replace"))
    order = (first + np.arange(len(_PALETTE))) % len(_PALETTE)
    nearest = _DISTANCES[:, taken].min(1, initial=np.inf)
    return next(int(index) for distance in _DISTINCT for index in order if nearest[index] > distance)


def label_map(result: Segmentation) -> np.ndarray:
    """Flat class colours, uint8 (H, W, 3); unlabelled pixels are dark grey."""
    table = np.concatenate([colours(result.names), np.array([UNLABELLED_COLOUR], np.uint8)])
    return table[result.labels]  # -1 picks the last row


def outlines(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, bool (H, W)."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def overlay(pixels: np.ndarray, result: Segmentation) -> np.ndarray:
    """Class colours over the photo, with outlines.

    Args:
        pixels: uint8 (H, W, 3), RGB, of the result's size.
        result: the segmentation.

    Returns:
        uint8 (H, W, 3), RGB; unlabelled pixels show the photo.
    """
    blended = cv2.addWeighted(label_map(result), OPACITY, pixels, 1 - OPACITY, 0)
    drawn = np.where((result.labels >= 0)[..., None], blended, pixels)
    drawn[outlines(result.labels)] = OUTLINE_COLOUR
    return drawn


def heat_map(pixels: np.ndarray, values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """A map of values over the photo in grey, in the colours of viridis.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        values: float (h, w), over the whole photo at any resolution; interpolated bilinearly.
        limits: the values that get the darkest and the brightest colour; values beyond them get the same colours.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    height, width = pixels.shape[:2]
    low, high = limits
    scaled = (values.astype(np.float32) - low) / ((high - low) or 1)
    large = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    return _over_grey(pixels, HEAT_COLOURS[np.clip(large * 255, 0, 255).astype(np.uint8)])


def region_map(pixels: np.ndarray, regions: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Regions in their colours over the photo in grey.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        regions: the region at each position, uint8 (h, w), over the whole photo at any resolution.
        colours: RGB, of each region, uint8 (R, 3).

    Returns:
        uint8 (H, W, 3), RGB.
    """
    large = cv2.resize(regions, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_NEAREST)
    return _over_grey(pixels, colours[large.astype(np.uint8)])


def _over_grey(pixels: np.ndarray, coloured: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(coloured, _HEAT_OPACITY, grey, 1 - _HEAT_OPACITY, 0)
