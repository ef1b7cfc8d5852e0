"""Leaves out points that would prompt SAM for the same masks again."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.sam.mobile_sam import SIDE, TOKEN, EncodedImage


class PointFilter:
    """Leaves out points whose masks have probably been found already.

    A point is redundant when an earlier prompt lies near it, under the same found masks, and has similar encoder
    features: the point would prompt for the same masks. None of the three conditions is enough alone. A small object
    can lie undetected on a large mask, similar objects differ by the masks over them, and a distant point may be on
    another object of the same kind. A point under no found mask is never redundant: one prompt on an object may fail,
    and the next one may find the whole object.

    Args:
        encoded: the image.
        similarity_threshold: the cosine, -1 to 1, above which the features of two points are similar at distance zero;
            None for a search that prompts with every point.
    """

    DISTANCE_COST = 2.56
    """Added to the threshold for two points as far apart as the image's longer side. See docs/speed.md."""

    def __init__(self, encoded: EncodedImage, similarity_threshold: float | None) -> None:
        self.similarity_threshold = similarity_threshold
        self._encoded = encoded
        rows, columns = (-(-side // TOKEN) for side in encoded.scaled)
        features = encoded.features[0, :, :rows, :columns].flatten(1).cpu()
        centred = features - features.mean(1, keepdim=True)
        deviation = centred.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
        self._features = F.normalize(centred / deviation, dim=0).view(-1, rows, columns)
        # Zobrist hashing: every mask draws a random word, and a pixel's key is the xor of the words of its masks.
        self._words = np.random.default_rng(0)
        self._keys = np.zeros(encoded.size, np.int64)
        self._prompts = torch.zeros(0, 2)

    def remaining(self, points: Tensor) -> Tensor:
        """The points that are not redundant, of float (N, 2), x and y in pixels of the encoder's square."""
        if self.similarity_threshold is None or not len(self._prompts):
            return points
        thresholds = self.similarity_threshold + torch.cdist(points, self._prompts) * (self.DISTANCE_COST / SIDE)
        similar = self._features_at(points) @ self._features_at(self._prompts).T > thresholds
        keys = self._keys_at(points)[:, None]
        same_masks = (keys == self._keys_at(self._prompts)) & (keys != 0)
        return points[~(similar & same_masks).any(1)]

    def add_prompts(self, points: Tensor) -> None:
        """Record prompts, float (N, 2), x and y in pixels of the encoder's square."""
        self._prompts = torch.cat([self._prompts, points])

    def add_mask(self, mask: np.ndarray) -> None:
        """Record a found mask, bool (H, W)."""
        self._keys[mask] ^= self._words.integers(1, 2**63)

    def _features_at(self, points: Tensor) -> Tensor:
        """Standardised unit features of points, (N, C)."""
        columns, rows = (points / TOKEN).long().T
        return self._features[:, rows, columns].T

    def _keys_at(self, points: Tensor) -> Tensor:
        """A key for the set of masks over each point, int64 (N,); 0 where there is none."""
        (height, width), (h, w) = self._encoded.size, self._encoded.scaled
        columns = (points[:, 0] * width / w).long().clamp(max=width - 1)
        rows = (points[:, 1] * height / h).long().clamp(max=height - 1)
        return torch.from_numpy(self._keys[rows.numpy(), columns.numpy()])
