"""Mask proposals, and the protocol of proposal generators."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Report = Callable[[float], None]
"""Called with the finished share of a stage, 0 to 1. It may raise Cancelled."""


@dataclass(frozen=True)
class MaskProposals:
    """N binary masks of one image of H x W pixels; N may be 0.

    Attributes:
        packed: uint8 (N, H, ceil(W / 8)), the masks as bits along the width (numpy.packbits).
        scores: float32 (N,), the proposal generator's estimate of quality, higher is better.
        width: W in pixels.
    """

    packed: np.ndarray
    scores: np.ndarray
    width: int

    @classmethod
    def from_masks(cls, masks: np.ndarray, scores: np.ndarray) -> "MaskProposals":
        """Proposals from masks, bool (N, H, W), and scores (N,)."""
        return cls(np.packbits(masks, axis=-1), np.asarray(scores, np.float32), masks.shape[-1])

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.packed.shape[1], self.width

    @property
    def nbytes(self) -> int:
        """Bytes of masks and scores in memory."""
        return self.packed.nbytes + self.scores.nbytes

    def mask(self, index: int) -> np.ndarray:
        """One mask, bool (H, W)."""
        return np.unpackbits(self.packed[index], axis=-1, count=self.width).view(bool)

    def masks(self) -> np.ndarray:
        """All masks, bool (N, H, W)."""
        return np.unpackbits(self.packed, axis=-1, count=self.width).view(bool)

    def resized(self, size: tuple[int, int]) -> "MaskProposals":
        """The same proposals at another size (H, W), by nearest neighbour; masks may become empty."""
        if size == self.size:
            return self
        rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, self.size, strict=True))
        packed = np.empty((len(self), size[0], -(-size[1] // 8)), np.uint8)
        for index in range(len(self)):
            packed[index] = np.packbits(self.mask(index)[np.ix_(rows, columns)], axis=-1)
        return MaskProposals(packed, self.scores, size[1])

    def without_empty(self) -> "MaskProposals":
        """The proposals whose masks have at least one pixel."""
        kept = self.packed.any((1, 2))
        return MaskProposals(self.packed[kept], self.scores[kept], self.width)

    def boxes(self) -> np.ndarray:
        """Tight boxes, int64 (N, 4): x0, y0, x1, y1 with exclusive x1, y1; zeros for an empty mask."""
        masks = self.masks()
        return np.concatenate([_extent(np.asarray(masks.any(1))), _extent(np.asarray(masks.any(2)))], 1)[
            :, [0, 2, 1, 3]
        ]


def _extent(occupied: np.ndarray) -> np.ndarray:
    """First and one-past-last True of each row of bool (N, L), int64 (N, 2); zeros where there is none."""
    first = occupied.argmax(1)
    last = occupied.shape[1] - occupied[:, ::-1].argmax(1)
    return np.stack([first, last], 1) * occupied.any(1, keepdims=True)


class ProposalGenerator(Protocol):
    """Finds class-agnostic masks in an image."""

    @property
    def name(self) -> str:
        """Identifies the proposals that it makes, in the keys of caches."""
        ...

    def propose(self, image: np.ndarray, report: Report) -> MaskProposals:
        """The mask proposals of an image.

        Args:
            image: uint8 (H, W, 3), RGB.
            report: progress callback.
        """
        ...
