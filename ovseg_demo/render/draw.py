"""Pictures of a result: class colours, overlay, label map, confidence map."""

from collections.abc import Sequence
from zlib import crc32

import cv2
import numpy as np

from ovseg_demo.result import Segmentation

UNLABELLED_COLOUR = (38, 40, 46)
OUTLINE_COLOUR = (255, 255, 255)
OPACITY = 0.55

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
"""Distances in CIELAB tried in turn: neighbours should not look alike while there is room."""


def colours(names: Sequence[str]) -> np.ndarray:
    """One RGB colour a class, uint8 (C, 3).

    A colour follows from the name, so a class keeps it across methods and runs. Where it would look like that of an
    earlier name of the same vocabulary, the later takes the next one that differs; each 32 classes the palette
    starts again, darker.
    """
    chosen = np.empty((len(names), 3), np.uint8)
    for start in range(0, len(names), len(_PALETTE)):
        shade = 0.75 ** (start // len(_PALETTE) % 4)
        taken: list[int] = []
        for i, name in enumerate(names[start : start + len(_PALETTE)], start):
            taken.append(_slot(name, taken))
            chosen[i] = _PALETTE[taken[-1]] * shade
    return chosen


def _slot(name: str, taken: list[int]) -> int:
    """The palette entry for a name beside those taken."""
    first = crc32(name.casefold().encode("utf-8", "replace"))
    order = (first + np.arange(len(_PALETTE))) % len(_PALETTE)
    nearest = _DISTANCES[:, taken].min(1, initial=np.inf)
    return next(int(s) for distance in _DISTINCT for s in order if nearest[s] > distance)


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


def overlay(pixels: np.ndarray, result: Segmentation, opacity: float = OPACITY) -> np.ndarray:
    """Class colours over the photo, with outlines.

    Args:
        pixels: uint8 (H, W, 3), RGB, of the result's size.
        result: what to draw.
        opacity: 0 (photo only) to 1 (flat colours).

    Returns:
        uint8 (H, W, 3), RGB; unlabelled pixels show the photo.
    """
    blended = cv2.addWeighted(label_map(result), opacity, pixels, 1 - opacity, 0)
    drawn = np.where((result.labels >= 0)[..., None], blended, pixels)
    drawn[outlines(result.labels)] = OUTLINE_COLOUR
    return drawn


def heat_map(pixels: np.ndarray, values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values over a photo's greys, from dark to bright in viridis.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        values: float (h, w), over the whole photo at any resolution; interpolated bilinearly.
        limits: the values that are darkest and brightest; what lies beyond is drawn like them.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    height, width = pixels.shape[:2]
    low, high = limits
    shares = (values.astype(np.float32) - low) / ((high - low) or 1)
    large = cv2.resize(shares, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    heat = HEAT_COLOURS[np.clip(large * 255, 0, 255).astype(np.uint8)]
    return cv2.addWeighted(heat, _HEAT_OPACITY, grey, 1 - _HEAT_OPACITY, 0)
