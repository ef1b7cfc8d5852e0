"""CLIP's transformer block, in steps that a method can recombine."""

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


class TransformerBlock(nn.Module):
    """open_clip's `ResidualAttentionBlock`, which normalises before attention and before its MLP.

    It takes over the layers of that block under their own names and computes the same function. Beside it, the tokens
    can attend to other tokens, and a method that changes attention finds its projections.

    Args:
        block: without layer scale, as all of CLIP's.
    """

    def __init__(self, block: ResidualAttentionBlock) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = block.ln_1, block.attn, block.ln_2, block.mlp

    def forward(
        self,
        tokens: Tensor,
        attn_mask: Tensor | None = None,
        *,
        queries: int | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Tokens after the block, (B, Q, W).

        Args:
            tokens: (B, L, W).
            attn_mask: (L, S) or (B, heads, L, S), added to the logits of attention to S tokens.
            queries: return only the first Q of the L tokens. All are computed, as open_clip does.
            context: (B, S, W), before this block's first norm: what the tokens attend to instead of themselves.
        """
        normalised = self.ln_1(tokens)
        attended = normalised if context is None else self.ln_1(context)
        if attn_mask is not None and attn_mask.ndim == 4:
            attn_mask = attn_mask.flatten(0, 1)
        x = tokens + self.attn(normalised, attended, attended, need_weights=False, attn_mask=attn_mask)[0]
        return self.feed_forward(x)[:, :queries]

    def queries_keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The projections of tokens (B, L, W), each (B, heads, L, d); queries are already divided by sqrt(d)."""
        projected = F.linear(self.ln_1(tokens), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = projected.unflatten(2, (3, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q * self.attn.head_dim**-0.5, k, v

    def merge_heads(self, attended: Tensor) -> Tensor:
        """The output projection (B, L, W) of what the heads have gathered, (B, heads, L, d)."""
        return self.attn.out_proj(attended.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, W) after attention, plus what the MLP makes of them."""
        return x + self.mlp(self.ln_2(x))
