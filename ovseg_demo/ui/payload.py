"""What the browser's viewer gets: a result as one small picture of per-pixel planes."""

import base64
import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from ovseg_demo.image import Photo
from ovseg_demo.render import draw
from ovseg_demo.result import Segmentation

_JPEG_QUALITY = 90
_HEAT = ["#" + bytes(rgb).hex() for rgb in draw.HEAT_COLOURS]
_numbers = itertools.count(1)


def payload(result: Segmentation, photo: Photo | None, key: str) -> dict:
    """The value of the viewer component, ready for JSON.

    Args:
        result: what to show.
        photo: its photo; None when the browser already has it, as after a slider move.
        key: of the photo; the browser ignores a late result for a photo that it no longer shows.
    """
    height, width = result.size
    return {
        "key": key,
        "width": width,
        "height": height,
        "photo": photo and photo_url(photo),
        "heat": _HEAT,
        **classes(result.names),
        **layer(result),
    }


def layer(result: Segmentation) -> dict:
    """What the browser gets of a result beside the photo and the classes, under a number of its own."""
    return {
        "id": next(_numbers),
        "depth": len(result.top_classes),
        "planes": _data_url(".png", planes(result), [cv2.IMWRITE_PNG_COMPRESSION, 1]),
        "legend": [
            {"index": c.index, "share": float(c.share), "confidence": float(c.confidence)} for c in result.summary()
        ],
        "presence": None if result.presence is None else result.presence.astype(float).round(4).tolist(),
        "notes": list(result.notes),
    }


def classes(names: Sequence[str]) -> dict:
    """The classes and their colours."""
    return {"names": list(names), "colours": ["#" + bytes(rgb).hex() for rgb in draw.colours(names)]}


def photo_url(photo: Photo) -> str:
    """The photo as the models see it, as a data URL."""
    return picture_url(photo.pixels)


def picture_url(rgb: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3), as a data URL."""
    return _data_url(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def planes(result: Segmentation) -> np.ndarray:
    """The planes below each other, uint8 ((1 + K) H, W, 3): R + 256 G is an index, B a score in 255ths.

    The first plane holds label + 1 (0 is unlabelled) and the confidence; the next K the best classes and scores.
    """
    indices = np.concatenate([result.labels[None] + 1, result.top_classes])
    scores = np.concatenate([result.scores[None], result.top_scores])
    packed = np.stack([indices & 255, indices >> 8, np.rint(scores * 255)], axis=-1).astype(np.uint8)
    return packed.reshape(-1, result.size[1], 3)


def _data_url(suffix: str, rgb: np.ndarray, settings: list[int]) -> str:
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)
    kind = {".png": "png", ".jpg": "jpeg"}[suffix]
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
