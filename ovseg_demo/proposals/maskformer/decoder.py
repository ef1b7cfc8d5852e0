"""MaskFormer's transformer decoder (Cheng et al. 2021, section 3.2; layers and positions of DETR, Carion et al. 2020).

Each of a fixed number of learned queries ends as one proposal: a class embedding in CLIP's text space (OVSeg, Liang et
al. 2023, section 3.1) and a mask embedding, whose products with the mask features are the mask's logits.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovseg_demo.proposals.maskformer.layers import Mlp

_TEMPERATURE = 10_000.0
_EPS = 1e-6


@dataclass(frozen=True)
class Predictions:
    """What one decoder layer predicts for B images with Q queries.

    Attributes:
        classes: (B, Q, D), class embeddings in the text space, not normalised.
        masks: (B, Q, H / 4, W / 4), mask logits.
    """

    classes: Tensor
    masks: Tensor


class Predictor(nn.Module):
    """Queries look at the coarsest map of the backbone, layer by layer, and predict after each.

    Args:
        channels: channels of that map.
        text_width: D, of the text space.
        width: channels of the queries and of the mask features.
        queries: Q.
        layers: how many.
        heads: of each attention.
        feedforward: hidden width of each layer's MLP.
        class_width: hidden width of the class head.
        dropout: share dropped in training, in attention and after each part of a layer.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        *,
        width: int = 256,
        queries: int = 100,
        layers: int = 6,
        heads: int = 8,
        feedforward: int = 2048,
        class_width: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        stack = Decoder(DecoderLayer(width, heads, feedforward, dropout, batch_first=True) for _ in range(layers))
        self.transformer = nn.ModuleDict({"decoder": stack})  # the released names have an empty encoder beside it
        self.query_embed = nn.Embedding(queries, width)
        self.input_proj = nn.Conv2d(channels, width, 1)
        self.class_embed = Mlp(width, class_width, text_width)
        self.mask_embed = Mlp(width, width, width, width)
        for parameter in stack.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.kaiming_uniform_(self.input_proj.weight, a=1)
        assert self.input_proj.bias is not None
        nn.init.zeros_(self.input_proj.bias)

    def forward(self, coarsest: Tensor, mask_features: Tensor, *, every_layer: bool) -> list[Predictions]:
        """Predictions of every layer, or of the last one only.

        Args:
            coarsest: (B, channels, H / 32, W / 32), the backbone's last map.
            mask_features: (B, width, H / 4, W / 4).
            every_layer: whether the heads run after each layer.
        """
        image = self.input_proj(coarsest)
        position = sine_position(*image.shape[1:]).to(image)
        states = self.transformer["decoder"](
            image.flatten(2).transpose(1, 2), position.flatten(1).T, self.query_embed.weight
        )
        return [self._heads(state, mask_features) for state in (states if every_layer else states[-1:])]

    def _heads(self, state: Tensor, mask_features: Tensor) -> Predictions:
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(state), mask_features)
        return Predictions(self.class_embed(state), masks)


class Decoder(nn.Module):
    """Layers, and the one layer norm on the output of each."""

    def __init__(self, layers: Iterable["DecoderLayer"]) -> None:
        super().__init__()
        stack = list(layers)
        self.layers = nn.ModuleList(stack)
        self.norm = nn.LayerNorm(list(stack[0].norm1.normalized_shape))

    def forward(self, image: Tensor, position: Tensor, queries: Tensor) -> list[Tensor]:
        """The queries' states after each layer.

        Args:
            image: tokens (B, T, C).
            position: (T, C), added to the tokens where they are keys.
            queries: (Q, C), added to the states, which begin at zero, where they are queries or keys.

        Returns:
            One (B, Q, C) a layer.
        """
        x, states = torch.zeros_like(queries).expand(len(image), -1, -1), []
        for layer in self.layers:
            x = layer(x, image, position, queries)
            states.append(self.norm(x))
        return states


class DecoderLayer(nn.TransformerDecoderLayer):
    """torch's layer (norms after the sums, ReLU), with DETR's positions in the attentions."""

    def forward(self, x: Tensor, image: Tensor, position: Tensor, queries: Tensor) -> Tensor:
        """(B, Q, C) to the same shape; arguments as in `Decoder.forward`."""
        placed = x + queries
        found, _ = self.self_attn(placed, placed, x, need_weights=False)
        x = self.norm1(x + self.dropout1(found))
        found, _ = self.multihead_attn(x + queries, image + position, image, need_weights=False)
        x = self.norm2(x + self.dropout2(found))
        found = self.linear2(self.dropout(self.linear1(x).relu()))
        return self.norm3(x + self.dropout3(found))


def sine_position(channels: int, height: int, width: int) -> Tensor:
    """Sine and cosine of a token's row, then of its column, float32 (channels, height, width).

    Rows and columns count from 1 and are scaled so that the last is 2 pi; channel pairs of each half have wavelengths
    from 2 pi up to 10000 times that (DETR, appendix A.4).
    """
    half = channels // 2
    wavelengths = _TEMPERATURE ** (torch.arange(0, half, 2) / half)
    encoded = []
    for count in (height, width):
        angles = torch.arange(1, count + 1) / (count + _EPS) * (2 * math.pi)
        angles = angles[:, None] / wavelengths
        encoded.append(torch.stack([angles.sin(), angles.cos()], -1).flatten(1).T)
    rows, columns = encoded
    return torch.cat([rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)])
