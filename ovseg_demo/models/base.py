"""The protocols of vision-language models."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ovseg_demo.proposals.base import MaskProposals, Report


class TextEncoder(Protocol):
    """Embeds words. The embeddings depend only on the words, so callers cache them."""

    name: str
    """Identifies the model and its weights in the keys of caches."""

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, float32 (len(words), D). Row i depends only on words[i]."""

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """Embeddings of background prompts, float32 (R, D) with R >= 1: texts that stand for all but `words`."""


class VisionLanguageModel(TextEncoder, Protocol):
    """Compares image regions with words.

    `embed_regions` is slow and depends only on the image, so callers cache it; `logits` is a small matrix product.
    """

    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Region embeddings, float32 (N, E).

        Args:
            image: uint8 (H, W, 3), RGB.
            proposals: N masks of the image; N may be 0.
            report: progress callback.
        """

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Similarity (N, K) of region embeddings (N, E) to text embeddings (K, D).

        A softmax over a vocabulary's columns gives class probabilities.
        """


class DenseModel(TextEncoder, Protocol):
    """Compares each position of a grid over a photo with words, without masks."""

    def embed_image(self, image: np.ndarray) -> Any:
        """Dense features of a photo, uint8 (H, W, 3), RGB, for `dense_logits`; an object with `nbytes`."""

    def dense_logits(self, features: Any, texts: Tensor) -> Tensor:
        """Similarity of dense features, from `embed_image`, to texts (K, D) on a coarse grid, float32 (K, h, w)."""
