"""Swin transformer (Liu et al. 2021) as a backbone for images of any size.

timm gives the patches, their merging, the MLP and stochastic depth. Its blocks pad a map after shifting it, which is
another function than the one these weights were trained for wherever the windows do not fill the map; and they cannot
skip the padding, so attention is our own. Tensor names are those of the Swin release.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import PatchMerging, get_relative_position_index
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4
"""Side in pixels of a token."""
_APART = -100.0
"""Added to attention logits between tokens that are neighbours only by the cyclic shift."""


class Swin(nn.Module):
    """Four stages of window attention; each one's output has a layer norm of its own.

    Args:
        width: channels of the first stage; each next one has twice as many.
        depths: blocks of the stages. Every second block shifts its windows by half of one.
        heads: attention heads of the stages.
        window: side of a window in tokens.
        drop_path: share of residual branches dropped in training, at the last block; it grows linearly from 0.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (4, 8, 16, 32),
        window: int = 12,
        drop_path: float = 0.3,
    ) -> None:
        super().__init__()
        self.channels = tuple(width * 2**i for i in range(len(depths)))
        """Channels of the stages' outputs."""
        self.patch_embed = PatchEmbed(None, PATCH, 3, width, norm_layer=nn.LayerNorm, output_fmt="NHWC")
        last = sum(depths) - 1
        rates = [drop_path * i / last for i in range(last + 1)]
        self.layers = nn.ModuleList(
            Stage(channels, rates[start:stop], n, window, merge=stop < len(rates))
            for channels, n, (start, stop) in zip(
                self.channels, heads, pairwise(accumulate(depths, initial=0)), strict=True
            )
        )
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W), multiples of 32, to the maps of strides 4, 8, 16 and 32."""
        x, maps = self.patch_embed(images), []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Stage)
            x = layer.blocks(x)
            maps.append(getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2))
            x = layer.downsample(x)
        return maps


class Stage(nn.Module):
    """Blocks at one resolution, then, in all stages but the last, the merging of 2 x 2 tokens."""

    def __init__(self, width: int, drop_paths: Sequence[float], heads: int, window: int, *, merge: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                Block(width, heads, window, shift=window // 2 if i % 2 else 0, drop_path=rate)
                for i, rate in enumerate(drop_paths)
            )
        )
        self.downsample = PatchMerging(width) if merge else nn.Identity()


class Block(nn.Module):
    """Window attention and an MLP, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, window: int, *, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shift)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class WindowAttention(nn.Module):
    """Attention among the tokens of each window, with a learned bias for each offset between two of them.

    The map is padded with zero tokens to whole windows and then rolled up and left by `shift`. Padding tokens take
    part like any other: what their query, key and value are is the bias of `qkv`. They are computed once, and the map
    is neither padded nor rolled: an index takes each window's tokens out of it, another puts them back.
    """

    relative_position_index: Tensor
    apart: Tensor

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", get_relative_position_index(window, window))
        self.register_buffer("apart", _apart(window, shift), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C) to the same shape."""
        images, height, width, channels = x.shape
        windows, places, counts = _windows(height, width, self.window, self.shift, x.device)
        tokens = self.qkv(F.pad(x.flatten(1, 2), (0, 0, 0, 1)))[:, windows]  # the last token is what pads the map
        bias = self.bias()
        attended, start = [], 0
        for apart, count in zip(self.apart, counts, strict=False):
            some = tokens[:, start : start + count].flatten(0, 1).unflatten(-1, (3, self.heads, -1))
            q, k, v = some.permute(2, 0, 3, 1, 4)
            mask = (bias + apart).to(q.dtype)
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])
            attended.append(found.transpose(1, 2).reshape(images, -1, channels))
            start += count
        return self.proj(torch.cat(attended, 1)[:, places].unflatten(1, (height, width)))

    def bias(self) -> Tensor:
        """What is added to the logits in every window: (heads, window ** 2, window ** 2)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # or training could not use what inference has cached
def _windows(
    height: int, width: int, window: int, shift: int, device: torch.device
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """How the shifted windows lie in a map.

    Returns:
        Which token of the flattened map stands where in each window, int64 (windows, window ** 2); height * width is
            a padding token. First come the windows that the shift leaves whole, then those of the last column, of the
            last row, and the last of all.
        Where each token of the map is found in the flattened windows, int64 (height * width,).
        How many windows of each of these four kinds there are; without a shift all are of the first.
    """
    rows, columns = -(-height // window), -(-width // window)
    padded = torch.full((rows * window, columns * window), height * width, device=device)
    padded[:height, :width] = torch.arange(height * width, device=device).view(height, width)
    rolled = padded.roll((-shift, -shift), (0, 1))
    grid = rolled.view(rows, window, columns, window).transpose(1, 2).flatten(2)
    inner = grid if shift == 0 else grid[:-1, :-1]
    kinds = [inner] if shift == 0 else [inner, grid[:-1, -1:], grid[-1:, :-1], grid[-1:, -1:]]
    windows = torch.cat([kind.flatten(0, 1) for kind in kinds])
    places = windows.flatten().argsort(stable=True)[: height * width]
    return windows, places, tuple(kind.shape[0] * kind.shape[1] for kind in kinds)


def _apart(window: int, shift: int) -> Tensor:
    """What keeps tokens apart that the shift brought together, for the four kinds of windows of `_windows`.

    Returns:
        float32 (4, 1, window ** 2, window ** 2), to be added to logits; (1, 1, 1, 1) of zero without a shift.
    """
    if shift == 0:
        return torch.zeros(1, 1, 1, 1)
    beyond = torch.arange(window) >= window - shift
    right = beyond.expand(window, window).flatten()
    below = beyond[:, None].expand(window, window).flatten()
    whole = torch.zeros_like(right)
    sides = torch.stack([whole.long(), right.long(), 2 * below.long(), right.long() + 2 * below.long()])
    return _APART * (sides[:, None, :, None] != sides[:, None, None, :]).float()
