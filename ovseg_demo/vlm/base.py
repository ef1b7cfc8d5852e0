"""The protocol that every vision-language model follows."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from ovseg_demo.proposals.base import MaskProposals, Report


class VisionLanguageModel(Protocol):
    """Compares image regions with words.

    `embed_regions` is slow and depends only on the image; `embed_texts` depends only on the words; `logits` is a
    small matrix product. Callers cache the first two.
    """

    name: str

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, float32 (len(words), D). Row i depends only on words[i]."""

    def embed_rival(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, float32 (R, D) with R >= 1, of "anything but `words`"."""

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
