"""CLIP's position embeddings on other grids of patches, by the published rules."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]
"""Patches of an image along its height and its width."""

PositionRule = Literal["bilinear", "bicubic", "bicubic-offset"]
"""How the position embeddings of the trained grid are interpolated.

- "bilinear": TagCLIP and ZegCLIP.
- "bicubic": SegCLIP; MROVSeg as SAN.
- "bicubic-offset": NACLIP and SCLIP, which ask for a grid of (h + 0.1, w + 0.1): the 0.1 changes where positions are
  sampled. A grid of as many patches as the trained one, whatever its shape, keeps the trained positions.

No rule aligns corners or smooths.
"""

_OFFSET = 0.1


def trained_grid(positions: Tensor) -> Grid:
    """The square grid that position embeddings (1 + s * s, W) were trained for: (s, s)."""
    side = math.isqrt(len(positions) - 1)
    return side, side


def resize_positions(positions: Tensor, grid: Grid, rule: PositionRule) -> Tensor:
    """Position embeddings of another grid, interpolated from the position embeddings of the trained grid.

    Args:
        positions: (1 + s * s, W), first the class token's, which stays as it is.
        grid: (h, w), the grid that is needed.
        rule: how to interpolate. On the trained grid every rule leaves the positions unchanged.

    Returns:
        (1 + h * w, W).
    """
    trained = trained_grid(positions)
    if grid == trained or (rule == "bicubic-offset" and grid[0] * grid[1] == len(positions) - 1):
        return positions
    of_patches = positions[1:].mT.unflatten(1, trained)[None]
    if rule == "bicubic-offset":
        factors = [(wanted + _OFFSET) / side for wanted, side in zip(grid, trained, strict=True)]
        resized = F.interpolate(of_patches, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
    else:
        resized = F.interpolate(of_patches, grid, mode=rule, align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).mT])
