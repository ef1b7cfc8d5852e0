"""MaskFormer's transformer decoder (Cheng et al. 2021, section 3.2; layers and positions of DETR, Carion et al. 2020).

Each of a fixed number of learned queries becomes one mask proposal: a class embedding in CLIP's text space (OVSeg,
Liang et al. 2023, section 3.1) and a mask embedding, whose products with the mask features are the logits of the mask.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovseg_demo.proposals.maskformer.layers import Mlp

_TEMPERATURE = 10_000.0  # DETR's name for the ratio of the longest to the shortest wavelength
_EPS = 1e-6


@dataclass(frozen=True)
class LayerPredictions:
    """The mask proposals that one decoder layer predicts for B images with Q queries.

    Attributes:
        class_embeddings: (B, Q, D), in the text space, not normalised.
        mask_logits: (B, Q, H / 4, W / 4).
    """

    class_embeddings: Tensor
    mask_logits: Tensor


class TransformerPredictor(nn.Module):
    """Queries attend to the coarsest feature map of the backbone; two heads predict masks from the queries.

    Args:
        channels: channels of the coarsest feature map.
        text_width: D, dimensions of the text space.
        width: channels of the queries and of the mask features.
        queries: Q, the number of queries.
        layers: number of decoder layers.
        heads: attention heads of each attention.
        feedforward: hidden width of each layer's MLP.
        class_width: hidden width of the MLP that predicts class embeddings.
        dropout: share of features dropped in training, in attention and after each sublayer.
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
        decoder = TransformerDecoder(
            DecoderLayer(width, heads, feedforward, dropout, batch_first=True) for _ in range(layers)
        )
        self.transformer = nn.ModuleDict({"decoder": decoder})  # the released transformer also has an empty encoder
        self.query_embed = nn.Embedding(queries, width)
        self.input_proj = nn.Conv2d(channels, width, 1)
        self.class_embed = Mlp(width, class_width, text_width)
        self.mask_embed = Mlp(width, width, width, width)
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.kaiming_uniform_(self.input_proj.weight, a=1)
        assert self.input_proj.bias is not None
        nn.init.zeros_(self.input_proj.bias)

    def forward(self, coarsest: Tensor, mask_features: Tensor, *, every_layer: bool) -> list[LayerPredictions]:
        """Predictions of every decoder layer, or of the last one only.

        Args:
            coarsest: (B, channels, H / 32, W / 32), the backbone's coarsest feature map.
            mask_features: (B, width, H / 4, W / 4), from the pixel decoder.
            every_layer: whether the heads also run after the layers before the last.
        """
        image = self.input_proj(coarsest)
        position = sine_position(*image.shape[1:]).to(image)
        states = self.transformer["decoder"](
            image.flatten(2).transpose(1, 2), position.flatten(1).T, self.query_embed.weight
        )
        return [self._predict(state, mask_features) for state in (states if every_layer else states[-1:])]

    def _predict(self, state: Tensor, mask_features: Tensor) -> LayerPredictions:
        """Predictions from the queries' states (B, Q, width) after one layer."""
        mask_logits = torch.einsum("bqc,bchw->bqhw", self.mask_embed(state), mask_features)
        return LayerPredictions(self.class_embed(state), mask_logits)


class TransformerDecoder(nn.Module):
    """Decoder layers one after the other; the output of every layer passes the same layer norm.

    Args:
        layers: at least one.
    """

    def __init__(self, layers: Iterable["DecoderLayer"]) -> None:
        super().__init__()
        first, *later = layers
        self.layers = nn.ModuleList([first, *later])
        self.norm = nn.LayerNorm(list(first.norm1.normalized_shape))

    def forward(self, image: Tensor, position: Tensor, queries: Tensor) -> list[Tensor]:
        """The queries' states after each layer.

        Args:
            image: image tokens (B, T, C).
            position: position encoding (T, C), added to the image tokens where they are keys.
            queries: learned query embeddings (Q, C), added to the queries' states, which begin at zero, where these
                are queries or keys.

        Returns:
            The normalised states (B, Q, C) after each layer.
        """
        x, states = torch.zeros_like(queries).expand(len(image), -1, -1), []
        for layer in self.layers:
            x = layer(x, image, position, queries)
            states.append(self.norm(x))
        return states


class DecoderLayer(nn.TransformerDecoderLayer):
    """torch's decoder layer (norms after the residual sums, ReLU), with DETR's positions in both attentions."""

    def forward(self, x: Tensor, image: Tensor, position: Tensor, queries: Tensor) -> Tensor:
        """The queries' states `x` (B, Q, C) to the same shape; other arguments as in `TransformerDecoder.forward`."""
        positioned = x + queries
        attended, _ = self.self_attn(positioned, positioned, x, need_weights=False)
        x = self.norm1(x + self.dropout1(attended))
        attended, _ = self.multihead_attn(x + queries, image + position, image, need_weights=False)
        x = self.norm2(x + self.dropout2(attended))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm3(x + self.dropout3(self.linear2(hidden)))


def sine_position(channels: int, height: int, width: int) -> Tensor:
    """Sine and cosine of a token's row, then of its column (DETR, appendix A.4).

    Rows and columns count from 1 and are scaled so that the last is 2 pi. In each half of the channels, the pairs of a
    sine and a cosine have wavelengths from 2 pi up to 10000 times 2 pi.

    Args:
        channels: a multiple of 4.
        height: rows of tokens.
        width: columns of tokens.

    Returns:
        float32 (channels, height, width).
    """
    half = channels // 2
    wavelengths = _TEMPERATURE ** (torch.arange(0, half, 2) / half)
    encoded = []
    for count in (height, width):
        angles = torch.arange(1, count + 1) / (count + _EPS) * (2 * math.pi)
        angles = angles[:, None] / wavelengths
        encoded.append(torch.stack([angles.sin(), angles.cos()], -1).flatten(1).T)
    by_row, by_column = encoded
    return torch.cat([by_row[:, :, None].expand(-1, -1, width), by_column[:, None].expand(-1, height, -1)])
