"""The input of SED's decoder from photos and words: cost maps and image features."""

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
"""Pixels a side of the square to which photos are resized, as the released models were trained and measured."""

STRIDE = 32
"""Pixels between positions of the cost map."""

_SHORTEST, _LONGEST = 640, 2560
_LONGEST_RATIO = 16
"""Strips thinner than 1 : 16 are resized to this ratio, because fewer than six positions across are too few."""


class CostMapSource(Protocol):
    """Makes the cost maps and image features on which a decoder was trained.

    A `models.base.TextEncoder`, except that the text embedding of a word may have a row for each of P prompts. In
    shapes, `...` stands for (D,) or (P, D), the shape of one text embedding.
    """

    @property
    def name(self) -> str:
        """Identifies the model and its weights in the keys of caches."""
        ...

    @property
    def slow_text_encoder(self) -> bool:
        """Whether embedding a word takes a tenth of a second or more, so that requests should take turns."""
        ...

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Embeddings of words, float32 (len(words), ...). Row i depends only on words[i]."""
        ...

    def class_embeddings(self, embeddings: Tensor, class_indices: Tensor) -> Tensor:
        """Embeddings of classes from the embeddings of their words.

        Args:
            embeddings: of K words, float32 (K, ...).
            class_indices: int64 (K,), the class of each word; every class from 0 to T - 1 occurs.

        Returns:
            float32, T embeddings of classes for `cost_map`.
        """
        ...

    def embed_image(self, image: np.ndarray, keep_aspect: bool) -> Any:
        """Features of a photo; an object with `nbytes`.

        Args:
            image: uint8 (H, W, 3), RGB.
            keep_aspect: whether to keep the aspect ratio even if the decoder was trained on squares.
        """
        ...

    def cost_map(self, features: Any, texts: Tensor) -> Tensor:
        """The cost maps of T classes, float32 (T, P, h, w), on a grid over the whole photo.

        Args:
            features: from `embed_image`.
            texts: from `class_embeddings`.
        """
        ...

    def skips(self, features: Any) -> tuple[Tensor, ...]:
        """The decoder's image features (C, 2h, 2w), (C', 4h, 4w), (C'', 8h, 8w), from the result of `embed_image`."""
        ...


class ClipCostMaps:
    """The published cost maps: cosines between dense features of a hierarchical CLIP and text embeddings of each class.

    Args:
        clip: with its weights loaded.
    """

    slow_text_encoder = True

    def __init__(self, clip: HierarchicalClip) -> None:
        self._clip = clip
        self.name = clip.name

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), P, D)."""
        return self._clip.embed_texts(words)

    def class_embeddings(self, embeddings: Tensor, class_indices: Tensor) -> Tensor:
        """Unit vectors (T, P, D): for each prompt the mean direction of the words of a class."""
        sums = embeddings.new_zeros(int(class_indices.max()) + 1, *embeddings.shape[1:])
        return F.normalize(sums.index_add_(0, class_indices.to(embeddings.device), embeddings), dim=-1)

    def embed_image(self, image: np.ndarray, keep_aspect: bool) -> HierarchicalFeatures:
        """Features of one photo; see `CostMapSource.embed_image`. Dense features are (1, D, h, w)."""
        return self._clip.embed_images(preprocess_keeping_aspect(image) if keep_aspect else preprocess_square(image))

    def cost_map(self, features: HierarchicalFeatures, texts: Tensor) -> Tensor:
        """Cosines (T, P, h, w) in [-1, 1] of dense features and text embeddings (T, P, D)."""
        return cost_map(features.dense.float(), texts.to(features.dense.device))[0]

    def skips(self, features: HierarchicalFeatures) -> tuple[Tensor, ...]:
        """Image features of the three finer stages, coarsest first."""
        return tuple(level[0] for level in features.skips)


def preprocess_square(image: np.ndarray) -> Tensor:
    """Prepare a photo as SED's published evaluation does, with two resizings.

    The first makes the shorter side 640 pixels and rounds to bytes; the second stretches the photo to a square.

    Args:
        image: uint8 (H, W, 3), RGB.

    Returns:
        float32 (1, 3, 768, 768), normalised.
    """
    height, width = image.shape[:2]
    resized = resize_smoothed(image, scaled_size((height, width), _SHORTEST, _LONGEST))
    return resize_to_square(normalise_image(resized, CLIP_MEAN, CLIP_STD), SIDE)


def preprocess_keeping_aspect(image: np.ndarray) -> Tensor:
    """Prepare a photo in its own aspect ratio, with about as many pixels as `preprocess_square` gives it.

    Args:
        image: uint8 (H, W, 3), RGB.

    Returns:
        float32 (1, 3, h, w), normalised, both sides multiples of 32.
    """
    height, width = image.shape[:2]
    ratio = min(max(height / width, 1 / _LONGEST_RATIO), _LONGEST_RATIO)
    height, width = (STRIDE * max(1, round(SIDE * root / STRIDE)) for root in (ratio**0.5, ratio**-0.5))
    return normalise_image(resize_smoothed(image, (height, width)), CLIP_MEAN, CLIP_STD)
