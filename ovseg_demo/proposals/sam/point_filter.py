"""Which points of an image are still worth asking about."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.sam.mobile_sam import SIDE, TOKEN, EncodedImage


class PointFilter:
    """What the questions asked so far say about the rest of an image.

    A point is answered when an asked one near it lies under the same masks and looks alike to the encoder: the same
    question would bring the same masks again. No sign is enough alone. Small things stand unseen on a large mask,
    things that look alike are told apart by masks, and what is far away may be another thing of the same kind. Where
    no mask was found yet, nothing is answered: there one point may fail and the next bring the whole pizza.

    Args:
        encoded: the image.
        alike: the cosine of two points' features at which they would look alike if they were one point; None for a
            search that asks about every point.
    """

    DISTANCE_COST = 2.56
    """Added to the cosine that is asked for, for a distance of the image's longer side. See docs/speed.md."""

    def __init__(self, encoded: EncodedImage, alike: float | None) -> None:
        self.alike = alike
        self._encoded = encoded
        rows, columns = (-(-side // TOKEN) for side in encoded.scaled)
        features = encoded.features[0, :, :rows, :columns].flatten(1).cpu()
        centred = features - features.mean(1, keepdim=True)
        spread = centred.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
        self._features = F.normalize(centred / spread, dim=0).view(-1, rows, columns)
        # Zobrist hashing: every mask draws a random word, and a pixel's key is the xor of the words of its masks.
        self._words = np.random.default_rng(0)
        self._keys = np.zeros(encoded.size, np.int64)
        self._asked = torch.zeros(0, 2)

    def unanswered(self, points: Tensor) -> Tensor:
        """Of points (N, 2), x and y in the encoder's square, those still worth asking about."""
        if self.alike is None or not len(self._asked):
            return points
        needed = self.alike + torch.cdist(points, self._asked) * (self.DISTANCE_COST / SIDE)
        alike = self._look(points) @ self._look(self._asked).T > needed
        keys = self._key(points)[:, None]
        same = (keys == self._key(self._asked)) & (keys != 0)
        return points[~(alike & same).any(1)]

    def ask(self, points: Tensor) -> None:
        """Note that these points (N, 2) are asked about."""
        self._asked = torch.cat([self._asked, points])

    def add(self, mask: np.ndarray) -> None:
        """Note a mask that was found, bool (H, W)."""
        self._keys[mask] ^= self._words.integers(1, 2**63)

    def _look(self, points: Tensor) -> Tensor:
        """Unit features of points, (N, C)."""
        columns, rows = (points / TOKEN).long().T
        return self._features[:, rows, columns].T

    def _key(self, points: Tensor) -> Tensor:
        """Which masks lie over points, one word each, int64 (N,)."""
        (height, width), (h, w) = self._encoded.size, self._encoded.scaled
        columns = (points[:, 0] * width / w).long().clamp(max=width - 1)
        rows = (points[:, 1] * height / h).long().clamp(max=height - 1)
        return torch.from_numpy(self._keys[rows.numpy(), columns.numpy()])
