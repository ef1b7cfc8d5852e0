"""A photo cut into cells: the pixels that belong to the same region of every window over them.

The released code gives every pixel of a window the scores of one of the window's regions, averages the windows, and
interpolates to the photo. A photo has many pixels but few cells, so class scores are computed and ranked once for each
cell. Only the pixels of the photo that lie between cells have scores of their own, a mixture of up to four cells. Where
the cells lie depends on the photo alone, not on words or options that change at once.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.segclip.encoder import PhotoRegions


@dataclass(frozen=True)
class RegionCells:
    """The cells of a photo with N windows of R regions each.

    Attributes:
        shares: of each of K cells the shares of all regions, float32 (K, N * R); they sum to 1.
        resized: the cell at each pixel of the resized photo, int32 (h, w).
        cells: the cell at each pixel of the photo, int32 (H, W), or one of the cells that are mixed there.
        mixed: the pixels at which cells are mixed, int64 (M,), as indices into all pixels in rows.
        corners: the cells that are mixed there, int32 (M, 4).
        weights: their weights, float32 (M, 4), which sum to 1.
    """

    shares: np.ndarray
    resized: np.ndarray
    cells: np.ndarray
    mixed: np.ndarray
    corners: np.ndarray
    weights: np.ndarray

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())


def cut_cells(regions: PhotoRegions, size: tuple[int, int]) -> RegionCells:
    """The cells of a photo of size (H, W), in pixels.

    As in the released code, the soft assignment of a window is enlarged before each pixel takes its most probable
    region.
    """
    shares, resized = _resized_cells(regions)
    (top, bottom, down), (left, right, along) = (
        _neighbours(*lengths) for lengths in zip(resized.shape, size, strict=True)
    )
    corners = [resized[np.ix_(rows, columns)] for rows in (top, bottom) for columns in (left, right)]
    mixed = np.flatnonzero(np.any([corner != corners[0] for corner in corners[1:]], 0))
    rows, columns = np.divmod(mixed, size[1])
    down, along = down[rows], along[columns]
    weights = np.stack([(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along], 1)
    at_mixed = np.stack([corner.reshape(-1)[mixed] for corner in corners], 1)
    return RegionCells(shares, resized, corners[0], mixed, at_mixed, weights.astype(np.float32))


def window_regions(soft: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The most probable region at each pixel of a window, int64 (H, W), of its soft assignment (R, h, w)."""
    return F.interpolate(soft[None], size, mode="bilinear", align_corners=False)[0].argmax(0).cpu().numpy()


def _resized_cells(regions: PhotoRegions) -> tuple[np.ndarray, np.ndarray]:
    """The shares of regions in each cell (K, N * R), and the cell at each pixel of the resized photo, int32 (h, w).

    Window after window, each cell under the window is divided by the window's regions.
    """
    layout, count = regions.layout, regions.soft.shape[1]
    cells = np.zeros(layout.size, np.int64)
    shares = np.zeros((1, regions.layout.count * count), np.float32)
    for index, (area, soft) in enumerate(zip(layout.areas(), regions.soft, strict=True)):
        inside = cells[area] * count + window_regions(soft, cells[area].shape)
        distinct, places = np.unique(inside, return_inverse=True)
        divided = shares[distinct // count]
        divided[np.arange(len(distinct)), index * count + distinct % count] += 1
        cells[area] = len(shares) + places.reshape(inside.shape)
        shares = np.concatenate([shares, divided])
    used, places = np.unique(cells, return_inverse=True)
    shares = shares[used]
    return shares / shares.sum(1, keepdims=True), places.reshape(layout.size).astype(np.int32)


def _neighbours(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear interpolation of `length` values to `wanted`, without aligned corners.

    Returns:
        For each wanted value the places of the two values between which it lies, int64, and the weight of the second.
    """
    places = np.maximum((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0)
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, length - 1), places - first


def centre_areas(cells: RegionCells) -> np.ndarray:
    """The area of each region in pixels of the resized photo, float32 (N * R,)."""
    pixels = np.bincount(cells.resized.reshape(-1), minlength=len(cells.shares)).astype(np.float32)
    return pixels @ cells.shares


def centre_map(cells: RegionCells, centres: int) -> np.ndarray:
    """The centre around which the region at each pixel of the resized photo has formed, uint8 (h, w).

    Where windows disagree it is the centre with the largest share.

    Args:
        cells: of the photo.
        centres: R, the number of regions of a window.
    """
    of_cell = cells.shares.reshape(len(cells.shares), -1, centres).sum(1).argmax(1).astype(np.uint8)
    return of_cell[cells.resized]
