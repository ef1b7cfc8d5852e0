"""The protocols of vision-language models, and how far their logits are to be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ovseg_demo.proposals.base import MaskProposals, Report


@dataclass(frozen=True)
class Calibration:
    """Two logistic regressions that turn the logits of a model into probabilities.

    The log-odds that a place shows a word, rather than something that was not asked for, are

        word * logit - background * max(rivals, floor) + offset

    where the rivals are the highest logit of the background words, or the log sum exp of all. The log-odds that a word
    is in the photo at all are

        presence * (the log-odds that a hundredth of all places exceed) + presence_offset.

    The defaults are for models whose logits were not calibrated: the softmax of a word and the nearest background word.
    A class that is made of background words competes in this way in NACLIP's protocol for PASCAL VOC.

    Attributes:
        word, background, offset: as above.
        floor: what the background words weigh at least, so that few of them, or unlikely ones, prove nothing.
        presence, presence_offset: as above.
        all_rivals: whether the rivals are the log sum exp.
    """

    word: float = 1.0
    background: float = 1.0
    offset: float = 0.0
    floor: float = float("-inf")
    presence: float = 1.0
    presence_offset: float = 0.0
    all_rivals: bool = False


UNCALIBRATED = Calibration()


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


class VisionLanguageModel(TextEncoder, Protocol):
    """Compares image regions with words.

    `embed_regions` is slow and depends only on the image, so callers cache it; `logits` is a small matrix product.
    """

    @property
    def calibration(self) -> Calibration:
        """Of the logits of regions."""
        ...

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

    @property
    def dense_calibration(self) -> Calibration:
        """Of the logits of positions."""
        ...

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
