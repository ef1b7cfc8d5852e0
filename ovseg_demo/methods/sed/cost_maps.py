"""From photos and words to what SED's decoder reads: cost maps and image features."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.sed.decoder import cost_map
from ovseg_demo.models.clip.convnext import HierarchicalClip, HierarchicalFeatures
from ovseg_demo.runtime.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    normalise_image,
    resize_smoothed,
    resize_to_square,
    scaled_size,
)

SIDE = 768
"""Pixels of the square that photos are squashed to, as the released models were trained and measured."""

STRIDE = 32
"""Pixels between places of the cost map."""

_SHORTEST, _LONGEST = 640, 2560
_LONGEST_RATIO = 16
"""Sides of thinner strips than 1 : 16 are brought to it: less than six places across tell little."""


class CostMapSource(Protocol):
    """Reads photos and words for a decoder that was trained on what this reader gives.

    Words are read as by `vlm.base.TextEncoder`, but an embedding may be of several prompts, (P, D).
    """

    name: str
    slow_texts: bool
    """Whether a word takes a tenth of a second and more to read."""

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, float32 (len(words), ...). Row i depends only on words[i]."""

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, float32 (R, ...) with R >= 1, of "anything but `words`"."""

    def class_texts(self, rows: Tensor, owners: Tensor) -> Tensor:
        """Texts of classes (T, ...) from those of words (K, ...); `owners`, int64 (K,), has the class of each word."""

    def embed_image(self, image: np.ndarray, keep_aspect: bool) -> Any:
        """What is known of a photo, uint8 (H, W, 3); has `nbytes`.

        `keep_aspect` keeps its aspect ratio where the decoder was trained on squares.
        """

    def cost(self, photo: Any, texts: Tensor) -> Tensor:
        """The cost map of each class, float32 (T, P, h, w), on a grid over the whole photo."""

    def skips(self, photo: Any) -> tuple[Tensor, ...]:
        """Image features (C, 2h, 2w), (C', 4h, 4w), (C'', 8h, 8w)."""


class ClipCostMaps:
    """SED's own: cosines between the places of a hierarchical CLIP's image and the prompts of each class."""

    slow_texts = True

    def __init__(self, clip: HierarchicalClip) -> None:
        self._clip = clip
        self.name = clip.name

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), P, D)."""
        return self._clip.embed_texts(words)

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """The embedding of "others" (1, P, D). SED has no rival; this is that of OVSeg's demo."""
        return self.embed_texts(["others"])

    def class_texts(self, rows: Tensor, owners: Tensor) -> Tensor:
        """Unit vectors (T, P, D): per prompt, the mean of a class's words."""
        summed = rows.new_zeros(int(owners.max()) + 1, *rows.shape[1:])
        return F.normalize(summed.index_add_(0, owners.to(rows.device), rows), dim=-1)

    def embed_image(self, image: np.ndarray, keep_aspect: bool) -> HierarchicalFeatures:
        """Of one image: `dense` (1, D, h, w)."""
        return self._clip.embed_images(preprocess_keeping_aspect(image) if keep_aspect else preprocess_square(image))

    def cost(self, photo: HierarchicalFeatures, texts: Tensor) -> Tensor:
        """Cosines in [-1, 1]."""
        return cost_map(photo.dense.float(), texts.to(photo.dense.device))[0]

    def skips(self, photo: HierarchicalFeatures) -> tuple[Tensor, ...]:
        return tuple(each[0] for each in photo.skips)


def preprocess_square(image: np.ndarray) -> Tensor:
    """A photo as SED's published evaluation prepares it: float32 (1, 3, 768, 768), normalised, from uint8 (H, W, 3).

    It resizes twice: to a shorter side of 640 in bytes, and then, whatever its shape, to a square.
    """
    height, width = image.shape[:2]
    resized = resize_smoothed(image, scaled_size((height, width), _SHORTEST, _LONGEST))
    return resize_to_square(normalise_image(resized, CLIP_MEAN, CLIP_STD), SIDE)


def preprocess_keeping_aspect(image: np.ndarray) -> Tensor:
    """A photo in its own aspect ratio, at about as many pixels: float32 (1, 3, H', W'), both multiples of 32."""
    height, width = image.shape[:2]
    ratio = min(max(height / width, 1 / _LONGEST_RATIO), _LONGEST_RATIO)
    height, width = (STRIDE * max(1, round(SIDE * root / STRIDE)) for root in (ratio**0.5, ratio**-0.5))
    return normalise_image(resize_smoothed(image, (height, width)), CLIP_MEAN, CLIP_STD)
