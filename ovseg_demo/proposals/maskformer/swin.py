"""Swin transformer (Liu et al. 2021) as a backbone for images of any size.

Patch embedding, patch merging, MLP and stochastic depth are timm's. The attention is our own: timm's blocks pad a map
after shifting it, which differs from the training of the released weights wherever windows do not fill the map, and
they cannot skip the padding. Tensor names are those of the Swin release.
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
_MASKED_LOGIT = -100.0
"""Added to attention logits between tokens that are neighbours only by the cyclic shift, as in the Swin release."""


class Swin(nn.Module):
    """Four stages of window attention; the output of every stage has a layer norm of its own.

    Args:
        width: channels of the first stage; every later stage has twice as many as the stage before.
        depths: number of blocks of each stage. Every second block shifts its windows by half a window.
        heads: attention heads of each stage.
        window: side of a window in tokens.
        drop_path: share of residual branches dropped in training in the last block; it grows linearly from 0 in the
            first block.
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
            Stage(channels, rates[start:stop], count, window, merge=stop < len(rates))
            for channels, count, (start, stop) in zip(
                self.channels, heads, pairwise(accumulate(depths, initial=0)), strict=True
            )
        )
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W), H and W multiples of 32, to feature maps of strides 4, 8, 16 and 32."""
        x, maps = self.patch_embed(images), []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Stage)
            x = layer.blocks(x)
            maps.append(getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2))
            x = layer.downsample(x)
        return maps


class Stage(nn.Module):
    """Blocks at one resolution, then patch merging: 2 x 2 tokens become one.

    Args:
        width: channels.
        drop_paths: share of residual branches dropped in training, for each block.
        heads: attention heads.
        window: side of a window in tokens.
        merge: whether there is patch merging; the last stage has none.
    """

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
    """Window attention and an MLP, both after a layer norm and with a residual connection.

    Args:
        width: channels.
        heads: attention heads.
        window: side of a window in tokens.
        shift: tokens by which the windows are shifted down and to the right.
        drop_path: share of residual branches dropped in training.
    """

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
    """Attention among the tokens of each window, with a learned bias for each offset between two tokens.

    In the published model the map is padded with zero tokens to whole windows and then rolled up and left by `shift`.
    Padding tokens take part in attention; as they are zero, their queries, keys and values are the bias of `qkv`. Here
    one padding token is computed, and the map is neither padded nor rolled: an index gathers the tokens of each window
    from it, another brings them back into the order of the map.

    Args:
        width: channels.
        heads: attention heads.
        window: side of a window in tokens.
        shift: tokens by which the windows are shifted down and to the right; 0 for none.
    """

    relative_position_index: Tensor
    shift_masks: Tensor

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", get_relative_position_index(window, window))
        self.register_buffer("shift_masks", _shift_masks(window, shift), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C) to the same shape."""
        images, height, width, channels = x.shape
        windows, positions, counts = _window_indices(height, width, self.window, self.shift, x.device)
        projected = self.qkv(F.pad(x.flatten(1, 2), (0, 0, 0, 1)))[:, windows]  # the last token is the padding token
        bias = self.relative_position_bias()
        attended, start = [], 0
        for shift_mask, count in zip(self.shift_masks, counts, strict=False):
            qkv = projected[:, start : start + count].flatten(0, 1).unflatten(-1, (3, self.heads, -1))
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mask = (bias + shift_mask).to(q.dtype)
            values = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])
            attended.append(values.transpose(1, 2).reshape(images, -1, channels))
            start += count
        return self.proj(torch.cat(attended, 1)[:, positions].unflatten(1, (height, width)))

    def relative_position_bias(self) -> Tensor:
        """The bias of the attention logits in every window, (heads, window ** 2, window ** 2)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # training cannot use tensors made in inference mode, and both use the cached ones
def _window_indices(
    height: int, width: int, window: int, shift: int, device: torch.device
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Indices that gather the tokens of the shifted windows from a map, and bring them back.

    Args:
        height: rows of the map.
        width: columns of the map.
        window: side of a window in tokens.
        shift: tokens by which the windows are shifted.
        device: of the indices.

    Returns:
        The token of the flattened map at each position of each window, int64 (windows, window ** 2); height * width
            stands for the padding token. There are four kinds of windows, in this order: windows that the shift leaves
            whole, windows of the last column, windows of the last row, and the window in the last row and column.
        The position of each token of the map among the flattened windows, int64 (height * width,).
        The number of windows of each kind; without a shift all windows are whole.
    """
    rows, columns = -(-height // window), -(-width // window)
    padded = torch.full((rows * window, columns * window), height * width, device=device)
    padded[:height, :width] = torch.arange(height * width, device=device).view(height, width)
    rolled = padded.roll((-shift, -shift), (0, 1))
    grid = rolled.view(rows, window, columns, window).transpose(1, 2).flatten(2)
    inner = grid if shift == 0 else grid[:-1, :-1]
    kinds = [inner] if shift == 0 else [inner, grid[:-1, -1:], grid[-1:, :-1], grid[-1:, -1:]]
    windows = torch.cat([kind.flatten(0, 1) for kind in kinds])
    positions = windows.flatten().argsort(stable=True)[: height * width]
    return windows, positions, tuple(kind.shape[0] * kind.shape[1] for kind in kinds)


def _shift_masks(window: int, shift: int) -> Tensor:
    """Attention masks that separate tokens which only the cyclic shift brought into one window.

    Args:
        window: side of a window in tokens.
        shift: tokens by which the windows are shifted.

    Returns:
        float32 (4, 1, window ** 2, window ** 2), to be added to the logits, for the four kinds of windows of
        `_window_indices`; zero of shape (1, 1, 1, 1) without a shift.
    """
    if shift == 0:
        return torch.zeros(1, 1, 1, 1)
    wrapped = (torch.arange(window) >= window - shift).long()
    right = wrapped.expand(window, window).flatten()
    below = 2 * wrapped[:, None].expand(window, window).flatten()
    regions = torch.stack([torch.zeros_like(right), right, below, right + below])
    return _MASKED_LOGIT * (regions[:, None, :, None] != regions[:, None, None, :]).float()
