"""Attention strategies for CLIP's last block, which make its patch tokens comparable with words.

CLIP is trained on the class token alone, so in its last block the patches attend to places that serve this token. The
training-free methods keep all weights and change the attention of this block.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.optimised import OptimisedBlock
from ovseg_demo.models.clip.positions import Grid

Strategy = Literal["naclip", "sclip", "kk", "maskclip", "vanilla"]
"""The attention of the last block; q, k and v are its projections, d the width of a head.

- "naclip": softmax(k k^T / sqrt(d) + omega) v with the neighbourhood omega (Hajimiri et al. 2025, section 3).
- "sclip": (softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d))) v, the correlative self-attention of Wang et al. 2024.
- "kk": softmax(k k^T / sqrt(d)) v, NACLIP without its neighbourhood.
- "maskclip": v, the value path of MaskCLIP (Zhou et al. 2022).
- "vanilla": softmax(q k^T / sqrt(d)) v, CLIP as it is.

"sclip" and "vanilla" keep the block's residual connection and its MLP; the other strategies return the output
projection of the attention alone, NACLIP's reduced architecture.
"""

NEIGHBOURHOOD_STD = 5.0
"""Standard deviation of NACLIP's Gaussian neighbourhood, in patches."""

_WHOLE_BLOCK = ("sclip", "vanilla")


def last_block(block: TransformerBlock | OptimisedBlock, tokens: Tensor, grid: Grid, strategy: Strategy) -> Tensor:
    """Tokens after the last block with a strategy's attention, float32 (B, 1 + h * w, W).

    Args:
        block: the last block of the tower.
        tokens: the tokens before this block, float32 (B, 1 + h * w, W), the class token first.
        grid: (h, w), the number of patches along the height and the width.
        strategy: see `Strategy`.
    """
    q, k, v = block.queries_keys_values(tokens)
    root = k.shape[-1] ** 0.5  # the block has already divided the queries by it
    if strategy == "maskclip":
        gathered = v
    elif strategy == "naclip":
        gathered = F.scaled_dot_product_attention(k, k, v, neighbourhood(grid).to(k), scale=1 / root)
    elif strategy == "kk":
        gathered = F.scaled_dot_product_attention(k, k, v, scale=1 / root)
    elif strategy == "sclip":
        gathered = F.scaled_dot_product_attention(q, q, v, scale=root)
        gathered = gathered + F.scaled_dot_product_attention(k, k, v, scale=1 / root)
    else:
        gathered = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    attended = block.merge_heads(gathered)
    return block.feed_forward(tokens + attended) if strategy in _WHOLE_BLOCK else attended.float()


def neighbourhood(grid: Grid) -> Tensor:
    """NACLIP's omega, added to the logits of attention, float32 (1 + h * w, 1 + h * w).

    For two patches exp(-distance^2 / (2 std^2)), the distance and NEIGHBOURHOOD_STD in patches; 0 for the class token.

    Args:
        grid: (h, w), the number of patches along the height and the width.
    """
    rows, columns = (_gaussian(length) for length in grid)
    omega = torch.zeros(1 + grid[0] * grid[1], 1 + grid[0] * grid[1])
    omega[1:, 1:] = torch.kron(rows, columns)
    return omega


def _gaussian(length: int) -> Tensor:
    """The Gaussian of the distance between any two patches along an axis, (length, length)."""
    positions = torch.arange(length)
    return (-((positions[:, None] - positions) ** 2) / (2 * NEIGHBOURHOOD_STD**2)).exp()
