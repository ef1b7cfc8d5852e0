"""The vote inside mask proposals: all pixels of a mask share its mean probabilities, which sharpens outlines."""

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.methods.dense.scores import PixelScores
from ovseg_demo.proposals.cells import Cells
from ovseg_demo.result import Segmentation

_BLOCK = 2**22


class CellScores:
    """Class scores that are constant in each cell, a `result.SampledScores`.

    Args:
        index: int32 (H, W), the cell of each pixel.
        scores: float32 (R, C), of each cell.
    """

    def __init__(self, index: np.ndarray, scores: Tensor) -> None:
        self._index, self._scores = index, scores
        self.classes, self.device = scores.shape[1], scores.device

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """The scores of P pixels, by their row and column, int64 (P,): float32 (C, P)."""
        return self._scores[torch.from_numpy(self._index[rows, columns]).to(self.device)].T


@torch.inference_mode()
def vote(result: Segmentation, scores: PixelScores, cells: Cells) -> Segmentation:
    """The same result, in which the mean probabilities of masks decide on the pixels of the masks.

    A pixel in several masks gets the mean of their probabilities. Their means are of the probabilities before PAMR.

    Args:
        result: of a photo.
        scores: of the same pixels.
        cells: the cut of the photo by its masks, at the same size.
    """
    sums, pixels = _cell_sums(scores, cells)
    cover = torch.from_numpy(cells.cover).to(sums)
    of_masks = (cover.T @ sums) / (cover.T @ pixels)[:, None]
    masks_over = cover.sum(1)
    of_cells = (cover @ of_masks) / masks_over.clamp(min=1)[:, None]
    masked = (masks_over > 0).cpu().numpy()[cells.index]
    return result.filled(CellScores(cells.index, of_cells), masked)


def _cell_sums(scores: PixelScores, cells: Cells) -> tuple[Tensor, Tensor]:
    """The sum of class probabilities in each cell, float32 (R, C), and the pixels of each cell, float32 (R,)."""
    (height, width), count = cells.size, len(cells.cover)
    sums = torch.zeros(count, scores.classes, device=scores.device)
    step = max(1, _BLOCK // (scores.classes * width))
    for top in range(0, height, step):
        rows = slice(top, top + step)
        found = scores.at_rows(rows)
        index = torch.from_numpy(cells.index[rows].ravel()).to(scores.device)
        sums.index_add_(0, index, (found / found.sum(0)).flatten(1).T)
    pixels = torch.from_numpy(np.bincount(cells.index.ravel(), minlength=count)).to(sums)
    return sums, pixels
