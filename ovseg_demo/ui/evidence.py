"""Look inside: heat maps of how a method decided, drawn for one word at a time and only when somebody looks."""

import itertools
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from ovseg_demo.render import draw
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.ui.payload import picture_url
from ovseg_demo.ui.session import Answer

_SIDE = 320
"""Longest side in pixels of what is drawn; five of them share the width of the page."""

_numbers = itertools.count(1)


def offer(result: Segmentation) -> dict | None:
    """What there is to look at in a result, ready for JSON and under a number of its own; None for nothing.

    "words" pairs the index of each class that has maps with its name; it is empty where all maps are of the image.
    "first" is the word to begin with: the one that covers most.
    """
    if not result.evidence:
        return None
    named = sorted({index for step in result.evidence for index in step.classes or ()})
    found = [summary.index for summary in result.summary() if summary.index in named]
    return {
        "id": next(_numbers),
        "words": [[index, result.names[index]] for index in named],
        "first": next(iter(found + named), None),
    }


def look(answer: Answer, offered: Any, word: Any) -> dict:
    """The maps of one word, ready for JSON: each with a title, a picture as a data URL, or none, and a caption.

    Args:
        answer: whose evidence is drawn.
        offered: the number of its offer, which goes back to the browser.
        word: the index of a class; one without maps is told to be rejected.
    """
    pixels = _bounded(answer.request.photo.pixels)
    return {"id": offered, "word": word, "panels": list(_panels(answer.result.evidence, pixels, word))}


def _panels(steps: tuple[Evidence, ...], pixels: np.ndarray, word: Any) -> Iterator[dict]:
    before, rejected = None, False
    for step in steps:
        if step.classes is None:
            yield from (_drawn(step, values, pixels) for values in step.maps)
        elif word in step.classes:
            before = step.title
            yield _drawn(step, step.maps[step.classes.index(word)], pixels)
        elif not rejected:  # told once; the steps after are without it too
            rejected = True
            told = f"Rejected: nowhere among the best in “{before}”." if before else "There is no map of this word."
            yield {"title": step.title, "picture": None, "caption": told}


def _drawn(step: Evidence, values: np.ndarray, pixels: np.ndarray) -> dict:
    low, high = float(values.min()), float(values.max())
    if step.limits is None:
        limits, caption = (low, high), f"{low:.3f} to {high:.3f}".replace("-", "−")
    else:
        limits, caption = step.limits, "{:g} to {:g}, highest {:.2f}".format(*step.limits, high)
    return {"title": step.title, "picture": picture_url(draw.heat_map(pixels, values, limits)), "caption": caption}


def _bounded(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    shrink = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
