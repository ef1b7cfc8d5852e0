"""An image cut along the outlines of its mask proposals: sums over masks are made once a piece, not once a pixel."""

from dataclasses import dataclass

import numpy as np

from ovseg_demo.proposals.base import MaskProposals


@dataclass(frozen=True)
class Cells:
    """The image cut along every mask outline.

    Attributes:
        index: int32 (H, W), the cell of each pixel.
        cover: float32 (R, N), 1 where mask n covers cell r.
    """

    index: np.ndarray
    cover: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        height, width = self.index.shape
        return height, width

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.cover.nbytes


def cut_cells(proposals: MaskProposals) -> Cells:
    """Cells of equal cover, from N proposals of an image of H x W pixels."""
    height, width = proposals.size
    # Zobrist hashing: masks draw random 64-bit words, a pixel's key is the xor of its masks' words. Two different
    # covers of one image collide with a probability below 1e-11 even at 10,000 cells.
    words = np.random.default_rng(0).integers(1, 2**63, size=len(proposals), dtype=np.uint64)
    keys = np.zeros((height, width), np.uint64)
    for number, word in enumerate(words):
        keys[proposals.mask(number)] ^= word
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    rows, columns = np.divmod(first, width)
    bits = proposals.packed[:, rows, columns // 8] >> (7 - columns % 8).astype(np.uint8) & 1
    return Cells(index.reshape(height, width).astype(np.int32), bits.T.astype(np.float32))
