"""From cosines of patches with words to scores of classes at pixels."""

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.dense.model import DenseFeatures

LOGIT_SCALE = 40.0
"""NACLIP's factor of cosines before the softmax over words."""

_ROWS_BLOCK = 2**22
"""Cosines at pixels that are made at once."""


class PixelScores:
    """Class scores of a photo, computed for requested pixels only; a `result.SampledScores`.

    NACLIP takes a softmax of LOGIT_SCALE times the cosines over all words, and of each class the probability of its
    best word, renormalised over the classes. A score is that probability before both normalisations.

    Args:
        features: of the photo, unit vectors.
        texts: K words of C classes, unit vectors of the same width.
        size: (H, W), the pixels.
    """

    def __init__(self, features: DenseFeatures, texts: ClassTextEmbeddings, size: tuple[int, int]) -> None:
        cosines = features.patches @ texts.embeddings.T.to(features.patches)
        layout = features.layout
        rows, columns = layout.rows.to_pixels(size[0]), layout.columns.to_pixels(size[1])
        self._size, self._indices = size, texts.class_indices.to(cosines.device)
        self._columns_done = layout.assemble(cosines) @ columns.to(cosines.device)
        self._rows = rows.T.contiguous().to(cosines.device)
        self.classes = int(texts.class_indices.max()) + 1
        self.device = cosines.device

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), the pixels."""
        return self._size

    @property
    def class_indices(self) -> Tensor:
        """The class of each word, int64 (K,)."""
        return self._indices

    def cosines(self, rows: slice, words: Tensor | slice = slice(None)) -> Tensor:
        """Cosines of some words with all pixels of some rows, float32 (K', h, W)."""
        return self._rows[rows] @ self._columns_done[words]

    def at_rows(self, rows: slice) -> Tensor:
        """The scores of all pixels of some rows, float32 (C, h, W)."""
        return best_words(word_scores(self.cosines(rows)), self._indices, self.classes)

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """The scores of P pixels, by their row and column, int64 (P,): float32 (C, P).

        All rows from the first to the last requested one are computed, so requests should be of neighbouring pixels.
        """
        first, found = int(rows.min()), torch.empty(self.classes, len(rows), device=self.device)
        step = max(1, _ROWS_BLOCK // (self._columns_done.shape[0] * self._size[1]))
        for start in range(first, int(rows.max()) + 1, step):
            here = (rows >= start) & (rows < start + step)
            scores = self.at_rows(slice(start, start + step))
            found[:, torch.from_numpy(here).to(self.device)] = scores[:, rows[here] - start, columns[here]]
        return found


def word_scores(cosines: Tensor) -> Tensor:
    """Scores, positive, of the cosines of any shape with words: exp(LOGIT_SCALE (cosine - 1)), in their memory.

    A score is at least exp(-2 LOGIT_SCALE) = 2e-35 and at most 1, so neither underflow nor overflow can occur.
    """
    return cosines.sub_(1).mul_(LOGIT_SCALE).exp_()


def best_words(scores: Tensor, class_indices: Tensor, classes: int) -> Tensor:
    """The score of each class's best word, (C, H, W).

    Args:
        scores: positive, of K words, (K, H, W).
        class_indices: int64 (K,), the class of each word.
        classes: C.
    """
    if torch.equal(class_indices, torch.arange(classes, device=class_indices.device)):  # one word for each class
        return scores
    best = scores.new_zeros(classes, *scores.shape[1:])
    return best.scatter_reduce_(0, class_indices.view(-1, 1, 1).expand_as(scores), scores, "amax")
