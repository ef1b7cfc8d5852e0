"""From masks and class logits of queries to a score of every class at every pixel: MROVSeg's inference.

As in SAN, a pixel's score of a class is the sum over the queries of the mask's probability at the pixel times the
probability of the class, in a softmax that has void as one more class. (Equation 9 of the paper has no softmax.) The
mask logits are enlarged to the padded photo, cut to the photo and resized to the result. Both steps are linear along
each axis, so two matrices make both at once, and no map of the photo's size is kept for all queries.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.class_texts import ClassTextEmbeddings

_COARSE_SIDE = 128
_LOGITS_AT_ONCE = 2**20  # so few that they stay in a processor's cache


@dataclass(frozen=True)
class PhotoQueries:
    """What the queries say of a photo, before any word is known.

    Attributes:
        masks: logits of the masks over the padded photo, float32 (Q, h, w).
        embeddings: class embeddings, unit vectors, float32 (Q, D).
        scale_attention: how far the slices are trusted, 0 to 1, over the padded photo, float32 (1, h', w'); None for a
            model without fusion.
        read: (H, W), the size in pixels at which the photo was read.
        padded: (H', W'), its size in pixels with the padding on the right and below.
    """

    masks: Tensor
    embeddings: Tensor
    scale_attention: Tensor | None
    read: tuple[int, int]
    padded: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        attention = 0 if self.scale_attention is None else self.scale_attention.nbytes
        return self.masks.nbytes + self.embeddings.nbytes + attention

    @cached_property
    def coarse_size(self) -> tuple[int, int]:
        """(h, w) of maps of the photo for evidence: at most 128 a side."""
        shrink = min(1.0, _COARSE_SIDE / max(self.read))
        return max(1, round(self.read[0] * shrink)), max(1, round(self.read[1] * shrink))

    @cached_property
    def coarse_masks(self) -> Tensor:
        """Probabilities of the masks, float32 (Q, *coarse_size)."""
        return self.resized(self.masks, self.coarse_size).sigmoid()

    def resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps over the padded photo, (K, h, w), as maps over the photo, (K, *size)."""
        rows, columns = self.matrices((maps.shape[1], maps.shape[2]), size)
        return rows.to(maps) @ maps @ columns.to(maps).mT

    def matrices(self, grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Interpolation weights (H, h) and (W, w), from a grid (h, w) over the padded photo to a size (H, W)."""
        rows, columns = (_interpolation(*each) for each in zip(grid, self.padded, self.read, size, strict=True))
        return rows, columns


@dataclass(frozen=True)
class QueryClasses:
    """What the queries show, Q queries and C classes.

    Attributes:
        probabilities: of the classes, float32 (Q, C); with that of void they add up to 1.
        known: the probability that a query shows each class, rather than void or something that was not asked for,
            float32 (Q, C); None where nothing was compared.
    """

    probabilities: Tensor
    known: Tensor | None


def class_probabilities(logits: Tensor, texts: ClassTextEmbeddings) -> Tensor:
    """Class probabilities (Q, C), which leave a rest for void.

    Args:
        logits: of the K words of `texts`, and of void, (Q, K + 1).
        texts: a class has the logit of its best word.
    """
    return torch.cat([texts.of_classes(logits[:, :-1]), logits[:, -1:]], 1).softmax(1)[:, :-1]


class QueryScores:
    """The scores of C classes at every pixel of an image: a `SampledScores`.

    Args:
        photo: masks of Q queries.
        weights: of the classes for each query, not negative, (Q, C).
        size: (H, W) of the image.
    """

    def __init__(self, photo: PhotoQueries, weights: Tensor, size: tuple[int, int]) -> None:
        grid = (photo.masks.shape[1], photo.masks.shape[2])
        self._rows, columns = (each.to(photo.masks) for each in photo.matrices(grid, size))
        self._widened = photo.masks @ columns.mT
        self._weights = weights.mT.contiguous()
        self.classes, self.device = weights.shape[1], weights.device

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """The scores of P pixels, by their row and column, int64 (P,): float32 (C, P)."""
        found = self._weights.new_empty(self.classes, len(rows))
        step = max(1, _LOGITS_AT_ONCE // len(self._widened))
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            found[:, some] = self._weights @ self._mask_logits(rows[some], columns[some]).sigmoid_()
        return found

    def _mask_logits(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """Logits of the masks at P >= 1 pixels, (Q, P)."""
        distinct, index = np.unique(rows, return_inverse=True)
        weights = self._rows[torch.from_numpy(distinct).to(self.device)]
        used = weights.any(0).nonzero()
        band = slice(int(used.min()), int(used.max()) + 1)  # a few rows of the mask, of which these rows are made
        logits = torch.einsum("nr,qrw->qnw", weights[:, band], self._widened[:, band]).flatten(1)
        places = torch.from_numpy(index * self._widened.shape[2] + columns)
        return logits[:, places.to(self.device)]


def known_share(photo: PhotoQueries, classes: QueryClasses) -> Tensor:
    """The probability that each place shows each class rather than something else, float32 (C, *coarse_size).

    It is the mean of the probabilities of the queries, weighted by what each contributes to the score of the class.
    """
    assert classes.known is not None
    masks = photo.coarse_masks.flatten(1)
    total = classes.probabilities.mT @ masks
    fitting = (classes.probabilities * classes.known).mT @ masks
    return (fitting / total.clamp(min=torch.finfo(total.dtype).tiny)).unflatten(1, photo.coarse_size)


def _interpolation(grid: int, padded: int, read: int, size: int) -> Tensor:
    """Weights (size, grid), bilinear without aligned corners: a grid to `padded` pixels, of which `read` to `size`."""
    enlarged = F.interpolate(torch.eye(grid)[None], padded, mode="linear", align_corners=False)[..., :read]
    return F.interpolate(enlarged, size, mode="linear", align_corners=False)[0].mT.contiguous()
