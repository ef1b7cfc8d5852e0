"""From cosines of patches with words to scores of classes at pixels."""

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.dense.model import DenseFeatures

LOGIT_SCALE = 40.0
"""NACLIP's factor of cosines before the softmax over words."""

_BAND_COSINES = 2**24
"""Cosines in a band of rows, 64 MB."""


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
        self._band_rows = max(1, _BAND_COSINES // (cosines.shape[-1] * size[1]))
        self._latest: tuple[int, Tensor] | None = None

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

        The scores of a band of rows are kept, so requests should be in the order of rows.
        """
        found = torch.empty(self.classes, len(rows), device=self.device)
        bands = rows // self._band_rows
        for band in np.unique(bands).tolist():
            here = np.flatnonzero(bands == band)
            pixels = (rows[here] - band * self._band_rows) * self._size[1] + columns[here]
            chosen, indices = (torch.from_numpy(array).to(self.device) for array in (here, pixels))
            found[:, chosen] = self._scores_of_band(band).flatten(1).index_select(1, indices)
        return found

    def _scores_of_band(self, number: int) -> Tensor:
        """The scores of all pixels of a band of rows, (C, h, W)."""
        if self._latest is None or self._latest[0] != number:
            rows = slice(number * self._band_rows, (number + 1) * self._band_rows)
            self._latest = number, self.at_rows(rows)
        return self._latest[1]


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
