"""What MROVSeg shows under "Look inside": where the slices are trusted, and the masks that decide most."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.methods.mrovseg.scores import PhotoQueries
from ovseg_demo.result import Evidence

QUERIES_SHOWN = 10

TRUST = "Trust in the slices (scale attention)"
"""Title of the map of the scale attention."""


def evidence(photo: PhotoQueries, probabilities: Tensor, names: tuple[str, ...]) -> Iterator[Evidence]:
    """A map of the scale attention, and the masks of the strongest queries with their words.

    A query is the stronger the more it contributes to the result: the probability of its best class, times the share
    of the photo that its mask covers.

    Args:
        photo: Q queries.
        probabilities: of the classes, (Q, C).
        names: of the C classes.
    """
    if photo.scale_attention is not None:
        yield Evidence(TRUST, _half(photo.resized(photo.scale_attention, photo.coarse_size)), None)
    best, classes = probabilities.max(1)
    strength = best * photo.coarse_masks.mean((1, 2))
    for rank, query in enumerate(strength.topk(min(QUERIES_SHOWN, len(strength))).indices.tolist(), 1):
        title = f"Mask {rank}: {names[int(classes[query])]} {best[query]:.2f}"
        yield Evidence(title, _half(photo.coarse_masks[query, None]), None, (0.0, 1.0))


def _half(maps: Tensor) -> np.ndarray:
    return maps.to(torch.float16).cpu().numpy()
