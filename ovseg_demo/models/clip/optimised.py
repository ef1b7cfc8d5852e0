"""CLIP's transformer blocks for inference: the same function as open_clip's, computed with less work.

Linear layers run in oneDNN with their activation fused, in bfloat16 where the processor multiplies it natively. What
accumulates stays in float32: the residual stream, layer norms, and the sums inside products and softmax.
"""

from typing import Literal

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.mask_prompts import MaskPromptedTower
from ovseg_demo.runtime.fused_layers import fused_linear

Precision = Literal["float32", "bfloat16"]

_QUICK = 1.702
"""QuickGELU is x * sigmoid(1.702 x)."""


def native_precision(device: torch.device) -> Precision:
    """The fastest precision that a device computes without emulating it."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu" and torch.backends.mkldnn.is_available():
        able = torch.cpu.get_capabilities()
        native = any(able.get(instructions) for instructions in ("avx512_bf16", "amx_bf16"))
    else:
        native = False
    return "bfloat16" if native else "float32"


class OptimisedBlock(nn.Module):
    """A transformer block of open_clip with its linear layers in `precision`.

    The constants of attention and QuickGELU are multiplied into copies of the weights: c * quick_gelu(x) = silu(c * x)
    for c = 1.702. What needs no change is shared with the original.
    """

    def __init__(self, block: ResidualAttentionBlock, precision: Precision) -> None:
        super().__init__()
        self._dtype = getattr(torch, precision)
        self._heads = block.attn.num_heads
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        attention, mlp = block.attn, block.mlp
        width = attention.embed_dim
        scale = torch.ones(3 * width, device=attention.in_proj_weight.device)
        scale[:width] = attention.head_dim**-0.5
        quick = _QUICK if isinstance(mlp.gelu, QuickGELU) else 1.0
        activation = nn.SiLU() if isinstance(mlp.gelu, QuickGELU) else mlp.gelu
        self.to_qkv = fused_linear(
            attention.in_proj_weight * scale[:, None], attention.in_proj_bias * scale, self._dtype
        )
        self.out = fused_linear(attention.out_proj.weight, attention.out_proj.bias, self._dtype)
        self.widen = fused_linear(mlp.c_fc.weight * quick, mlp.c_fc.bias * quick, self._dtype, activation)
        self.narrow = fused_linear(mlp.c_proj.weight / quick, mlp.c_proj.bias, self._dtype)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, queries: int | None = None) -> Tensor:
        """Tokens after the block, float32 (B, L, W) like `x`.

        Args:
            attn_mask: (L, L), added to the logits of attention.
            queries: compute only the first so many tokens, for a last block of which the others are not read.
        """
        attended = self._attended(self.ln_1(x).to(self._dtype), attn_mask, queries)
        x = x[:, :queries] + self.out(attended)
        return x + self.narrow(self.widen(self.ln_2(x).to(self._dtype)))

    def _attended(self, x: Tensor, attn_mask: Tensor | None, queries: int | None) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        q = q[:, :, :queries]
        # In bfloat16 two plain products are a tenth faster, but round the logits before the softmax.
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask, scale=1.0)
        return mixed.transpose(1, 2).flatten(2)


class OptimisedMaskPromptedTower(MaskPromptedTower):
    """A tower whose blocks are replaced, one after the other, by `OptimisedBlock`s; the given one is used up."""

    def __init__(self, tower: MaskPromptedTower, precision: Precision) -> None:
        super().__init__(tower, tower.mask_embedding)
        replace_blocks(self.transformer.resblocks, precision)

    def _class_token(self, x: Tensor) -> Tensor:
        return self.transformer.resblocks[-1](x, queries=1)[:, 0]


def replace_blocks(blocks: nn.ModuleList, precision: Precision) -> None:
    """Replace open_clip's blocks in place, so that no more than one is in memory twice."""
    for index, block in enumerate(blocks):
        blocks[index] = OptimisedBlock(block, precision)
