"""CLIP's transformer blocks for inference: the same function as open_clip's, computed with less work.

Linear layers run in oneDNN with their activation fused, in bfloat16 where the processor multiplies it natively. What
accumulates stays in float32: the residual stream, layer norms, and the sums inside products and softmax.
"""

from typing import Literal, TypeVar

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.runtime.fused_layers import fused_linear

Precision = Literal["float32", "bfloat16"]
"""Number type of the weights and inputs of linear layers."""

AnyModule = TypeVar("AnyModule", bound=nn.Module)

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
    """A transformer block with its linear layers in `precision`; its methods are those of `TransformerBlock`.

    The constants of attention and QuickGELU are multiplied into copies of the weights: c * quick_gelu(x) = silu(c * x)
    for c = 1.702. Layer norms are shared with the original.

    Args:
        block: the original.
        precision: of the linear layers.
    """

    def __init__(self, block: ResidualAttentionBlock | TransformerBlock, precision: Precision) -> None:
        super().__init__()
        self._dtype = getattr(torch, precision)
        self._heads = block.attn.num_heads
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        attention, (fc1, activation, fc2) = block.attn, block.mlp
        if not (isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)):
            raise TypeError("The block's MLP does not have two linear layers.")
        width = attention.embed_dim
        weight, bias, scale = attention.in_proj_weight, attention.in_proj_bias, attention.head_dim**-0.5
        self.query = fused_linear(weight[:width] * scale, bias[:width] * scale, self._dtype)
        # Clones, because slices would keep the whole of the original tensors in memory.
        self.key_value = fused_linear(weight[width:].clone(), bias[width:].clone(), self._dtype)
        self.out = fused_linear(attention.out_proj.weight, attention.out_proj.bias, self._dtype)
        constant = 1.0
        if isinstance(activation, QuickGELU):
            constant, activation = _QUICK, nn.SiLU()
        self.fc1 = fused_linear(fc1.weight * constant, fc1.bias * constant, self._dtype, activation)
        self.fc2 = fused_linear(fc2.weight / constant, fc2.bias, self._dtype)

    def forward(
        self,
        tokens: Tensor,
        attn_mask: Tensor | None = None,
        *,
        queries: int | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Tokens after the block, float32 (B, Q, W); arguments as of `TransformerBlock`, `tokens` in float32.

        Of the tokens that `queries` leaves out, no more is computed than their keys and values.
        """
        normalised = self.ln_1(tokens).to(self._dtype)
        attended = normalised if context is None else self.ln_1(context).to(self._dtype)
        q, k, v = self._project(normalised[:, :queries], attended)
        if attn_mask is not None:
            attn_mask = attn_mask[..., :queries, :].to(self._dtype)
        # In bfloat16 two plain products are a tenth faster, but round the logits before the softmax.
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask, scale=1.0)
        return self.feed_forward(tokens[:, :queries] + self.merge_heads(gathered))

    def queries_keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `TransformerBlock.queries_keys_values`, in the block's precision."""
        normalised = self.ln_1(tokens).to(self._dtype)
        return self._project(normalised, normalised)

    def merge_heads(self, attended: Tensor) -> Tensor:
        """As `TransformerBlock.merge_heads`, in the block's precision."""
        return self.out(attended.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        """As `TransformerBlock.feed_forward`."""
        return x + self.fc2(self.fc1(self.ln_2(x).to(self._dtype)))

    def _project(self, queried: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of tokens (B, Q, W), keys and values of tokens (B, L, W), by heads."""
        q = self.query(queried).unflatten(2, (self._heads, -1)).transpose(1, 2)
        k, v = self.key_value(attended).unflatten(2, (2, self._heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v


def optimise(module: AnyModule, precision: Precision) -> AnyModule:
    """Replace the transformer blocks within a tower, in place, by `OptimisedBlock`s; blocks of other types stay.

    One block after the other, so that no more than one is in memory twice.

    Args:
        module: an `ImageTower`, open_clip's text transformer, or anything else that has such blocks in a `ModuleList`.
        precision: of the linear layers.

    Returns:
        The module itself.
    """
    for blocks in [part for part in module.modules() if isinstance(part, nn.ModuleList)]:
        for index, block in enumerate(blocks):
            if isinstance(block, ResidualAttentionBlock | TransformerBlock):
                blocks[index] = OptimisedBlock(block, precision)
    return module
