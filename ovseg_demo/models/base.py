"""The protocols of vision-language models."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ovseg_demo.proposals.base import MaskProposals, Report


class TextEncoder(Protocol):
    """Embeds words. The embeddings depend only on the words, so callers cache them."""

    @property
    def name(self) -> str:
        """Identifies the model, its weights and its prompt templates in the keys of caches."""
        ...

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, float32 (len(words), D), on the model's device. Row i depends only on words[i].

        Args:
            words: words or short phrases in any spelling; there may be none, and a word may occur twice.
        """
        ...

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """Embeddings of background prompts, float32 (R, D) with R >= 1: texts that stand for all but `words`.

        Args:
            words: the words of a vocabulary; no background prompt means the same as one of them.
        """
        ...


class VisionLanguageModel(TextEncoder, Protocol):
    """Compares image regions with words.

    `embed_regions` is slow and depends only on the image, so callers cache it; `logits` is a small matrix product.
    """

    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Region embeddings, float32 (N, E).

        Args:
            image: uint8 (H, W, 3), RGB.
            proposals: N masks of the image; N may be 0.
            report: called with the share of the regions that are done, in (0, 1].

        Returns:
            Embeddings in proposal order, on the model's device.
        """
        ...

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Similarity of regions to texts, float32 (N, K). A softmax over a vocabulary's columns gives probabilities.

        Args:
            regions: region embeddings (N, E).
            texts: text embeddings (K, D).
        """
        ...


class DenseModel(TextEncoder, Protocol):
    """Compares each position of a grid over a photo with words, without masks."""

    def embed_image(self, image: np.ndarray) -> Any:
        """Dense features of a photo for `dense_logits`: an object with `nbytes`, its bytes in memory.

        Args:
            image: uint8 (H, W, 3), RGB.
        """
        ...

    def dense_logits(self, features: Any, texts: Tensor) -> Tensor:
        """Similarity of a photo's positions to texts, float32 (K, h, w), on a grid over the whole photo.

        Args:
            features: dense features from `embed_image`.
            texts: text embeddings (K, D).
        """
        ...
