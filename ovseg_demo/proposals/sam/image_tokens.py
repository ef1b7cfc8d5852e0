"""The image side of SAM's two-way transformer, for many prompts at once without a copy of the image for each prompt.

A prompt changes the image tokens only through their attention to the prompt's own 7 tokens. One such layer adds a sum
over the (head, token) pairs, 56 terms in all: for each pair a map of attention weights times a row of channels. The
layer norm after it is linear but for one factor an image token. So at any depth the image tokens of prompt p are

    keys[p] = scale[p] * shared[p] + sum_j coefficients[j, p] * rows[j] + bias

with `shared` and `bias` the same for all prompts. Every linear map of the keys follows from the linear map of `shared`,
computed once an image, and the linear map of the few rows; the keys, 4 MB a prompt, are never formed. Nothing is
approximated.

Letters in shapes: B prompts, T = 7 tokens a prompt, H = 8 heads of D = 16 channels in cross attention, C = 256
channels, P = 4096 image tokens in reading order, J terms of the sum, K output channels of a linear map. Maps over the
image lie as (H, T, B, P): heads or prompts can then be the batch of a matrix product without copying.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

HEADS = 8
HEAD_WIDTH = 16
PROMPT_TOKENS = 7
TERMS_PER_LAYER = HEADS * PROMPT_TOKENS


@dataclass(frozen=True)
class RowBases:
    """Matrices from the attention values of a prompt to the rows of its sum, or to a linear map of these rows.

    The rows come in groups of 56, one group for each attention layer that the image tokens have passed, and may end
    with a row that is the same for all prompts.

    Attributes:
        bases: (H, D, K) for each group: attention values times the basis are the rows.
        constant: (K,), the row that is the same for all prompts, or None.
    """

    bases: tuple[Tensor, ...] = ()
    constant: Tensor | None = None

    def __len__(self) -> int:
        """J, the number of rows of one prompt."""
        return len(self.bases) * TERMS_PER_LAYER + (self.constant is not None)

    def map(self, function: Callable[[Tensor], Tensor]) -> "RowBases":
        """The bases of the mapped rows, for a function that is linear over the last dimension."""
        constant = None if self.constant is None else function(self.constant)
        return RowBases(tuple(map(function, self.bases)), constant)

    def rows(self, values: tuple[Tensor, ...]) -> Tensor:
        """The rows of B prompts, (B, J, K), from the attention values (H, T, B, D) of each group."""
        prompts = values[0].shape[2]
        groups = [
            torch.bmm(v.flatten(1, 2), basis).view(TERMS_PER_LAYER, prompts, basis.shape[-1]).transpose(0, 1)
            for v, basis in zip(values, self.bases, strict=True)
        ]
        if self.constant is not None:
            groups.append(self.constant.expand(prompts, 1, -1))
        return torch.cat(groups, 1)


@dataclass(frozen=True)
class Projection:
    """The queries, keys or values that an attention layer projects from the image tokens.

    Attributes:
        shared: (H, D, P), the projection of the shared tokens.
        offset: (H, D, P) or (H, D, 1), the part that no prompt changes: bias and position encoding.
        rows: the bases of the projected rows, K = H * D.
    """

    shared: Tensor
    offset: Tensor
    rows: RowBases


@dataclass(frozen=True)
class NormStatistics:
    """What a layer norm needs for the variance of a prompt's image tokens; rows and tokens are centred over channels.

    Attributes:
        rows: the bases of the rows that enter the norm, K = C.
        squared_length: (P,), squared lengths of the shared tokens.
        dot_products: the bases of the products of the rows with the shared tokens, K = P.
        eps: added to the variance.
    """

    rows: RowBases
    squared_length: Tensor
    dot_products: RowBases
    eps: float


@dataclass(frozen=True)
class SharedImage:
    """The part of the transformer's work that is the same for all prompts on one image.

    Attributes:
        layers: for each layer the projections of its attentions, as (keys, values, queries), and the statistics for the
            norm after them.
        final: keys and values of the last attention.
        shared: (C, P), the shared image tokens after the last layer.
        bias: (C,), the bias of the image tokens after the last layer.
        rows: the bases of the rows after the last layer, K = C.
    """

    layers: tuple[tuple[Projection, Projection, Projection, NormStatistics], ...]
    final: tuple[Projection, Projection]
    shared: Tensor
    bias: Tensor
    rows: RowBases

    @classmethod
    def from_tokens(cls, transformer: Any, tokens: Tensor, position: Tensor) -> "SharedImage":
        """Run the shared part of the image side of a transformer.

        Args:
            transformer: segment-anything's TwoWayTransformer with two layers, which have no static types.
            tokens: image tokens (C, P).
            position: their position encoding (C, P).
        """
        shared, bias, rows = tokens, torch.zeros_like(tokens[:, 0]), RowBases()

        def project(linear: nn.Linear, position: Tensor | None = None) -> Projection:
            offset = (linear.weight @ bias + linear.bias)[:, None]
            if position is not None:
                offset = offset + linear.weight @ position
            heads = (HEADS, HEAD_WIDTH, -1)
            return Projection(
                (linear.weight @ shared).view(heads), offset.view(heads), rows.map(lambda r: r @ linear.weight.T)
            )

        layers = []
        for layer in transformer.layers:
            to_image, to_token = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            keys, values = project(to_image.k_proj, position), project(to_image.v_proj)
            queries = project(to_token.q_proj, position)
            basis = to_token.out_proj.weight.T.view(HEADS, HEAD_WIDTH, -1)
            offset = bias + to_token.out_proj.bias
            if rows.bases:
                rows = RowBases((*rows.bases, basis), offset)
            else:  # all scales are still 1, so the offset can join the shared tokens
                shared, rows = shared + offset[:, None], RowBases((basis,))
            shared, rows = shared - shared.mean(0), rows.map(lambda r: r - r.mean(-1, keepdim=True))
            dot_products = rows.map(lambda r, shared=shared: r @ shared)
            statistics = NormStatistics(rows, shared.square().sum(0), dot_products, layer.norm4.eps)
            layers.append((keys, values, queries, statistics))
            weight, bias = layer.norm4.weight, layer.norm4.bias
            shared, rows = shared * weight[:, None], rows.map(lambda r, weight=weight: r * weight)
        last = transformer.final_attn_token_to_image
        return cls(tuple(layers), (project(last.k_proj, position), project(last.v_proj)), shared, bias, rows)


class ImageTokens:
    """The image tokens of B prompts on their way through the layers of a transformer.

    Args:
        prompts: B.
        shared_image: the part that all prompts share.

    Attributes:
        scale: (B, P), see the formula at the top of this module.
        coefficients: (J, B, P), see the formula at the top of this module.
        values: attention values (H, T, B, D) for each group of rows.
    """

    def __init__(self, prompts: int, shared_image: SharedImage) -> None:
        shape = (prompts, shared_image.shared.shape[1])
        most = max(len(statistics.rows) for *_, statistics in shared_image.layers)
        self.scale = shared_image.shared.new_ones(shape)
        self.values: tuple[Tensor, ...] = ()
        # Buffers are made once a batch: fresh memory costs more than the arithmetic on it.
        self._all_coefficients, self._products = (shared_image.shared.new_empty(most, *shape) for _ in range(2))
        self._scores, self._weights = (shared_image.shared.new_empty(HEADS, PROMPT_TOKENS, *shape) for _ in range(2))
        self.coefficients = self._all_coefficients[:0]

    def attend_to_image(self, queries: Tensor, keys: Projection, values: Projection) -> Tensor:
        """Attention from the prompts' tokens to the image tokens.

        Args:
            queries: of the prompts' tokens, (B, T, H * D).
            keys: of the image tokens.
            values: of the image tokens.

        Returns:
            The attended values, (B, T, H * D), before the output projection.
        """
        weights = torch.softmax(self._score(queries, keys), -1, out=self._weights)
        attended = values.offset.transpose(1, 2)
        if self.values:
            sums = _prompt_first(weights) @ _prompt_first(self.coefficients).transpose(1, 2)
            attended = attended + sums.unflatten(1, (HEADS, PROMPT_TOKENS)) @ self._rows(values)
        weights *= self.scale
        shared = torch.bmm(weights.flatten(1, 2), values.shared.transpose(1, 2))
        attended = attended + shared.view(HEADS, PROMPT_TOKENS, -1, HEAD_WIDTH).permute(2, 0, 1, 3)
        return attended.transpose(1, 2).flatten(2)

    def attend_to_prompts(self, keys: Tensor, values: Tensor, queries: Projection, statistics: NormStatistics) -> None:
        """Attention from the image tokens to the prompts' tokens, its residual sum, and the layer norm after it.

        Args:
            keys: of the prompts' tokens, (B, T, H * D).
            values: of the prompts' tokens, (B, T, H * D).
            queries: of the image tokens.
            statistics: of the layer norm.
        """
        scores = self._score(keys, queries)
        terms = slice(len(self.values) * TERMS_PER_LAYER, (len(self.values) + 1) * TERMS_PER_LAYER)
        torch.softmax(scores, 1, out=self._all_coefficients[terms].view_as(scores))
        self.values = (*self.values, _by_head(values).contiguous())
        count = len(statistics.rows)
        self.coefficients, products = self._all_coefficients[:count], self._products[:count]
        for i, (value, basis) in enumerate(zip(self.values, statistics.dot_products.bases, strict=True)):
            group = products[i * TERMS_PER_LAYER : (i + 1) * TERMS_PER_LAYER]
            torch.bmm(value.flatten(1, 2), basis, out=group.view(HEADS, -1, basis.shape[-1]))
        if statistics.dot_products.constant is not None:
            self.coefficients[-1], products[-1] = 1, statistics.dot_products.constant
        # |scale * shared + sum|^2 = scale^2 |shared|^2 + sum_j coefficients_j * (2 scale rows_j . shared + (gram c)_j)
        rows = statistics.rows.rows(self.values)
        products *= 2 * self.scale
        _prompt_first(products).baddbmm_(rows @ rows.transpose(1, 2), _prompt_first(self.coefficients))
        products *= self.coefficients
        squared_length = self.scale.square() * statistics.squared_length + products.sum(0)
        factor = torch.rsqrt(squared_length / rows.shape[-1] + statistics.eps)
        self.coefficients *= factor
        self.scale *= factor

    def _score(self, queries: Tensor, projection: Projection) -> Tensor:
        """Scaled products (H, T, B, P) of queries (B, T, H * D) with a projection of the image tokens."""
        queries = _by_head(queries) / math.sqrt(HEAD_WIDTH)
        scores, flat = self._scores, queries.flatten(1, 2)
        torch.bmm(flat, projection.shared, out=scores.flatten(1, 2))
        scores *= self.scale
        scores.flatten(1, 2).baddbmm_(flat, projection.offset)
        if self.values:
            mixing = queries.permute(2, 0, 1, 3) @ self._rows(projection).transpose(2, 3)
            _prompt_first(scores).baddbmm_(mixing.flatten(1, 2), _prompt_first(self.coefficients))
        return scores

    def _rows(self, projection: Projection) -> Tensor:
        """The projected rows by head, (B, H, J, D)."""
        return projection.rows.rows(self.values).unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H * D) to (H, T, B, D)."""
    return x.unflatten(-1, (HEADS, HEAD_WIDTH)).permute(2, 1, 0, 3)


def _prompt_first(maps: Tensor) -> Tensor:
    """(H, T, B, P) or (J, B, P) to (B, J, P), without copying."""
    return maps.flatten(0, -3).transpose(0, 1)
