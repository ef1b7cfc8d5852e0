"""The Multi-Res Adapter (section 3.4): a small vision transformer on mask queries and the stem tokens of all slices."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Literal

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.fusion import input_projection
from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.positions import Grid

INITIAL_STD = 0.02
"""Standard deviation of queries, positions and weights before training, as of SAN and timm's vision transformers."""

AdapterState = tuple[Tensor, Tensor]
"""The queries (B, Q, D) and the map of the photo (B, H', W', D) after a block."""


class MultiResAdapter(nn.Module):
    """Queries and visual tokens attend to each other over the whole photo, so across the borders of its slices.

    Its blocks are a vision transformer's: norms first, epsilon 1e-6, GELU, an MLP of four times the width. Of what the
    paper leaves open, SAN decides: queries have a content and a position, positions are added before every block, and
    no norm follows the last block.

    Args:
        width: D, channels.
        clip_width: channels of CLIP's stem tokens; where they are not D, a linear layer comes first.
        blocks: number of blocks.
        heads: attention heads of a block.
        queries: number of queries.
        grid: patches, in training, of the photo whose position embeddings are learned; others are interpolated.
        positions: when positions are added to the visual tokens, see `MROVSegSettings.adapter_positions`.
        adapt_map: whether visual tokens pass through the blocks; if not, only the queries do, and attend to the fused
            maps of CLIP as they are.
    """

    def __init__(
        self,
        width: int,
        clip_width: int,
        *,
        blocks: int,
        heads: int,
        queries: int,
        grid: Grid,
        positions: Literal["every block", "first block", "none"] = "every block",
        adapt_map: bool = True,
    ) -> None:
        super().__init__()
        self._grid, self._every_block, self._adapt_map = grid, positions == "every block", adapt_map
        self.proj = input_projection(clip_width, width)
        self.query_embed = nn.Parameter(torch.zeros(1, queries, width))
        self.query_pos = nn.Parameter(torch.zeros(1, queries, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], width)) if positions != "none" else None
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            TransformerBlock(ResidualAttentionBlock(width, heads, norm_layer=norm)) for _ in range(blocks)
        )
        self.apply(_initialise)
        for parameter in (self.query_embed, self.query_pos, self.pos_embed):
            if parameter is not None:
                nn.init.normal_(parameter, std=INITIAL_STD)

    def forward(
        self, stem: Tensor, fused: Mapping[int, Tensor], supervised: Collection[int] = ()
    ) -> list[AdapterState]:
        """Queries and maps of the photo.

        Args:
            stem: CLIP's stem tokens of all slices, put together to a map, (B, H', W', clip_width).
            fused: maps (B, H', W', D) by the number of blocks after which they are added to the visual tokens.
            supervised: numbers of blocks, counted from 1, after which the state is wanted beside the last block's.

        Returns:
            The states after the supervised blocks and after the last block, in this order.
        """
        grid = (stem.shape[1], stem.shape[2])
        positions = self._positions(grid)
        queries, visual = self.query_embed.expand(len(stem), -1, -1), self.proj(stem).flatten(1, 2)
        count, states = queries.shape[1], []
        tokens = torch.cat([queries, visual], 1) + positions
        tokens = _add(tokens, fused.get(0), count)
        for number, block in enumerate(self.blocks, 1):
            if self._adapt_map:
                tokens = block(tokens)
            else:
                tokens = torch.cat([block(tokens, queries=count), tokens[:, count:]], 1)
            tokens = _add(tokens, fused.get(number), count)
            if number in supervised or number == len(self.blocks):
                states.append((tokens[:, :count], tokens[:, count:].unflatten(1, grid)))
            if self._every_block and number < len(self.blocks):
                # Of visual tokens that no block changes, positions would only add up.
                tokens = tokens + positions if self._adapt_map else _add_to_queries(tokens, self.query_pos)
        return states

    def _positions(self, grid: Grid) -> Tensor:
        """Positions (1, Q + H' * W', D) of queries and of visual tokens on a grid (H', W')."""
        if self.pos_embed is None:
            return F.pad(self.query_pos, (0, 0, 0, grid[0] * grid[1]))
        of_map = self.pos_embed
        if grid != self._grid:
            trained = of_map.mT.unflatten(2, self._grid)
            of_map = F.interpolate(trained, grid, mode="bicubic", align_corners=False).flatten(2).mT
        return torch.cat([self.query_pos, of_map], 1)


def _add(tokens: Tensor, of_map: Tensor | None, queries: int) -> Tensor:
    """Tokens whose visual part has a map (B, H', W', D) added."""
    if of_map is None:
        return tokens
    return torch.cat([tokens[:, :queries], tokens[:, queries:] + of_map.flatten(1, 2)], 1)


def _add_to_queries(tokens: Tensor, positions: Tensor) -> Tensor:
    count = positions.shape[1]
    return torch.cat([tokens[:, :count] + positions, tokens[:, count:]], 1)


def _initialise(module: nn.Module) -> None:
    """Weights as of timm's vision transformers: a truncated normal distribution, biases of zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.trunc_normal_(module.in_proj_weight, std=INITIAL_STD)
