"""Look inside: how a method decided, as heat maps of one word at a time and as the regions that it has formed.

They are drawn only when a person opens them.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from ovseg_demo.render import draw
from ovseg_demo.result import Evidence, RegionMap, Segmentation
from ovseg_demo.ui.payload import picture_url
from ovseg_demo.ui.session import Answer

_SIDE = 320
"""Longest side in pixels of a drawn heat map; five heat maps share the width of the page."""

_numbers = itertools.count(1)


def available_maps(result: Segmentation) -> dict | None:
    """Which heat maps a result has, ready for JSON and under an id of their own; None where it has none.

    "words" pairs the index of each class that has maps with its name; it is empty where all maps are of the image.
    "first" is the class whose maps are shown first: the class that covers the largest part of the photo.
    """
    if not result.evidence:
        return None
    heat_maps = (step for step in result.evidence if isinstance(step, Evidence))
    named = sorted({index for step in heat_maps for index in step.classes or ()})
    found = [summary.index for summary in result.summary() if summary.index in named]
    return {
        "id": next(_numbers),
        "words": [[index, result.names[index]] for index in named],
        "first": next(iter(found + named), None),
    }


def draw_word_maps(answer: Answer, maps_id: Any, word: Any) -> dict:
    """The maps of one word, ready for JSON: for each map a title, a picture as a data URL or None, and a caption.

    A map of regions has "regions" in addition: pairs of the CSS colour of a region and what is said of it.

    Args:
        answer: whose evidence is drawn.
        maps_id: the id that `available_maps` gave, which goes back to the browser.
        word: the index of a class; where a step has no map of it, the caption says why.
    """
    pixels = _bounded(answer.request.photo.pixels)
    return {"id": maps_id, "word": word, "panels": list(_panels(answer.result.evidence, pixels, word))}


def _panels(steps: tuple[Evidence | RegionMap, ...], pixels: np.ndarray, word: Any) -> Iterator[dict]:
    before, rejected = None, False
    for step in steps:
        if isinstance(step, RegionMap):
            yield _drawn_regions(step, pixels)
        elif step.classes is None:
            yield from (_drawn(step, values, pixels) for values in step.maps)
        elif word in step.classes:
            before = step.title
            yield _drawn(step, step.maps[step.classes.index(word)], pixels)
        elif not rejected:  # said once; the later steps have no map of the word either
            rejected = True
            caption = f"Rejected: nowhere among the best in “{before}”." if before else "There is no map of this word."
            yield {"title": step.title, "picture": None, "caption": caption}


def _drawn(step: Evidence, values: np.ndarray, pixels: np.ndarray) -> dict:
    low, high = float(values.min()), float(values.max())
    if step.limits is None:
        limits, caption = (low, high), f"{low:.3f} to {high:.3f}".replace("-", "−")
    else:
        limits, caption = step.limits, "{:g} to {:g}, highest {:.2f}".format(*step.limits, high)
    return {"title": step.title, "picture": picture_url(draw.heat_map(pixels, values, limits)), "caption": caption}


def _drawn_regions(step: RegionMap, pixels: np.ndarray) -> dict:
    colours = draw.colours([f"region {number}" for number in range(len(step.captions))])
    there = [(colour, caption) for colour, caption in zip(colours.tolist(), step.captions, strict=True) if caption]
    return {
        "title": step.title,
        "picture": picture_url(draw.region_map(pixels, step.regions, colours)),
        "caption": "",
        "regions": [["rgb({} {} {})".format(*colour), caption] for colour, caption in there],
    }


def _bounded(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    shrink = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
