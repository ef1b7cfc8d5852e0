"""The image side of SAM's two-way transformer, for many prompts at once without a copy of the image for each.

A prompt changes the image only through attention to its own 7 tokens. What one such layer adds is a sum over (head,
token) pairs of one map of weights times one row of channels, 56 terms in all, and the layer norm after it is linear
but for one factor an image token. So at any depth the image tokens of a prompt are

    keys[p] = scale[p] * shared[p] + sum_j coefficients[j, p] * rows[j] + bias

with `shared` and `bias` the same for all prompts. Every linear map of the keys follows from the map of `shared`, done
once an image, and the map of the few rows; the keys, 4 MB a prompt, are never formed. Nothing is approximated.

Letters in shapes: B prompts, T = 7 tokens a prompt, H = 8 heads of D = 16 channels in cross attention, C = 256
channels, P = 4096 image tokens in reading order, J terms of the sum, K output channels of a linear map. Maps over the
image lie as (H, T, B, P): heads or prompts can then be the batch of a matrix product without copying.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

HEADS = 8
DEPTH = 16
TOKENS = 7
TERMS = HEADS * TOKENS


@dataclass(frozen=True)
class Rows:
    """The rows of the sum, or a linear map of them: a group for each attention layer passed, then a constant row.

    Attributes:
        bases: (H, D, K) for each group: a prompt's attention values times the basis are its rows.
        constant: (K,), or None where there is no such row.
    """

    bases: tuple[Tensor, ...] = ()
    constant: Tensor | None = None

    def __len__(self) -> int:
        """J, the number of rows of one prompt."""
        return len(self.bases) * TERMS + (self.constant is not None)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Rows":
        """These rows after a function that is linear over the last dimension."""
        constant = None if self.constant is None else function(self.constant)
        return Rows(tuple(map(function, self.bases)), constant)

    def of(self, values: tuple[Tensor, ...]) -> Tensor:
        """The rows of B prompts, (B, J, K), from the attention values (H, T, B, D) of each group."""
        prompts = values[0].shape[2]
        groups = [
            torch.bmm(v.flatten(1, 2), basis).view(TERMS, prompts, basis.shape[-1]).transpose(0, 1)
            for v, basis in zip(values, self.bases, strict=True)
        ]
        if self.constant is not None:
            groups.append(self.constant.expand(prompts, 1, -1))
        return torch.cat(groups, 1)


@dataclass(frozen=True)
class Read:
    """A linear map of the image tokens at one depth, as an attention layer needs it.

    Attributes:
        shared: (H, D, P), the map of the shared tokens.
        fixed: (H, D, P) or (H, D, 1), the map of what no prompt changes: bias and position encoding.
        rows: the map of the rows, K = H * D.
    """

    shared: Tensor
    fixed: Tensor
    rows: Rows


@dataclass(frozen=True)
class Norm:
    """What a layer norm needs for the variance of a prompt's tokens, all of it centred over channels.

    Attributes:
        rows: the rows that enter the norm, K = C.
        square: (P,), squared length of the shared tokens.
        dots: products of the rows with the shared tokens, K = P.
        eps: the norm's own.
    """

    rows: Rows
    square: Tensor
    dots: Rows
    eps: float


@dataclass(frozen=True)
class Scene:
    """What all prompts on one image share.

    Attributes:
        layers: for each layer what its attentions read, as (keys, values, queries), and the norm after them.
        final: keys and values of the last attention.
        shared: (C, P), bias: (C,) and rows: the image tokens after the last layer.
    """

    layers: tuple[tuple[Read, Read, Read, Norm], ...]
    final: tuple[Read, Read]
    shared: Tensor
    bias: Tensor
    rows: Rows

    @classmethod
    def of(cls, transformer: nn.Module, tokens: Tensor, position: Tensor) -> "Scene":
        """Prepare segment-anything's TwoWayTransformer, of two layers, for image tokens and positions, each (C, P)."""
        shared, bias, rows = tokens, torch.zeros_like(tokens[:, 0]), Rows()

        def read(linear: nn.Linear, position: Tensor | None = None) -> Read:
            fixed = (linear.weight @ bias + linear.bias)[:, None]
            if position is not None:
                fixed = fixed + linear.weight @ position
            heads = (HEADS, DEPTH, -1)
            return Read(
                (linear.weight @ shared).view(heads), fixed.view(heads), rows.map(lambda r: r @ linear.weight.T)
            )

        layers = []
        for layer in transformer.layers:
            inward, outward = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            reads = read(inward.k_proj, position), read(inward.v_proj), read(outward.q_proj, position)
            basis = outward.out_proj.weight.T.view(HEADS, DEPTH, -1)
            offset = bias + outward.out_proj.bias
            if rows.bases:
                rows = Rows((*rows.bases, basis), offset)
            else:  # nothing is scaled yet, so the offset can join the shared tokens
                shared, rows = shared + offset[:, None], Rows((basis,))
            shared, rows = shared - shared.mean(0), rows.map(lambda r: r - r.mean(-1, keepdim=True))
            dots = rows.map(lambda r, shared=shared: r @ shared)
            layers.append((*reads, Norm(rows, shared.square().sum(0), dots, layer.norm4.eps)))
            gain, bias = layer.norm4.weight, layer.norm4.bias
            shared, rows = shared * gain[:, None], rows.map(lambda r, gain=gain: r * gain)
        last = transformer.final_attn_token_to_image
        return cls(tuple(layers), (read(last.k_proj, position), read(last.v_proj)), shared, bias, rows)


class ImageTokens:
    """The image tokens of B prompts on their way through the layers of a scene.

    Attributes:
        scale: (B, P), coefficients: (J, B, P): see the top of this module.
        values: (H, T, B, D) for each group of rows.
    """

    def __init__(self, prompts: int, scene: Scene) -> None:
        shape = (prompts, scene.shared.shape[1])
        most = max(len(norm.rows) for *_, norm in scene.layers)
        self.scale = scene.shared.new_ones(shape)
        self.values: tuple[Tensor, ...] = ()
        # Workspaces are made once a batch: fresh memory costs more than the arithmetic on it.
        self._room, self._products = (scene.shared.new_empty(most, *shape) for _ in range(2))
        self._scores, self._weights = (scene.shared.new_empty(HEADS, TOKENS, *shape) for _ in range(2))
        self.coefficients = self._room[:0]

    def attended(self, queries: Tensor, keys: Read, values: Read) -> Tensor:
        """What tokens with queries (B, T, H * D) gather from the image, (B, T, H * D)."""
        weights = torch.softmax(self._score(queries, keys), -1, out=self._weights)
        gathered = values.fixed.transpose(1, 2)
        if self.values:
            shares = _prompt_first(weights) @ _prompt_first(self.coefficients).transpose(1, 2)
            gathered = gathered + shares.unflatten(1, (HEADS, TOKENS)) @ self._rows(values)
        weights *= self.scale
        shared = torch.bmm(weights.flatten(1, 2), values.shared.transpose(1, 2))
        gathered = gathered + shared.view(HEADS, TOKENS, -1, DEPTH).permute(2, 0, 1, 3)
        return gathered.transpose(1, 2).flatten(2)

    def attend(self, keys: Tensor, values: Tensor, queries: Read, norm: Norm) -> None:
        """Let the image attend to tokens with keys and values (B, T, H * D), add what it finds, and normalise."""
        scores = self._score(keys, queries)
        found = slice(len(self.values) * TERMS, (len(self.values) + 1) * TERMS)
        torch.softmax(scores, 1, out=self._room[found].view_as(scores))
        self.values = (*self.values, _by_head(values).contiguous())
        self.coefficients, products = self._room[: len(norm.rows)], self._products[: len(norm.rows)]
        for i, (value, dots) in enumerate(zip(self.values, norm.dots.bases, strict=True)):
            torch.bmm(
                value.flatten(1, 2), dots, out=products[i * TERMS : (i + 1) * TERMS].view(HEADS, -1, dots.shape[-1])
            )
        if norm.dots.constant is not None:
            self.coefficients[-1], products[-1] = 1, norm.dots.constant
        # |scale * shared + sum|^2 = scale^2 |shared|^2 + sum_j coefficients_j * (2 scale rows_j . shared + (gram c)_j)
        rows = norm.rows.of(self.values)
        products *= 2 * self.scale
        _prompt_first(products).baddbmm_(rows @ rows.transpose(1, 2), _prompt_first(self.coefficients))
        products *= self.coefficients
        square = self.scale.square() * norm.square + products.sum(0)
        factor = torch.rsqrt(square / rows.shape[-1] + norm.eps)
        self.coefficients *= factor
        self.scale *= factor

    def _score(self, queries: Tensor, read: Read) -> Tensor:
        """Scaled products (H, T, B, P) of queries (B, T, H * D) with a linear map of the image tokens."""
        queries = _by_head(queries) / math.sqrt(DEPTH)
        scores, flat = self._scores, queries.flatten(1, 2)
        torch.bmm(flat, read.shared, out=scores.flatten(1, 2))
        scores *= self.scale
        scores.flatten(1, 2).baddbmm_(flat, read.fixed)
        if self.values:
            mixing = queries.permute(2, 0, 1, 3) @ self._rows(read).transpose(2, 3)
            _prompt_first(scores).baddbmm_(mixing.flatten(1, 2), _prompt_first(self.coefficients))
        return scores

    def _rows(self, read: Read) -> Tensor:
        """A linear map of the rows by head, (B, H, J, D)."""
        return read.rows.of(self.values).unflatten(-1, (HEADS, DEPTH)).transpose(1, 2)


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H * D) to (H, T, B, D)."""
    return x.unflatten(-1, (HEADS, DEPTH)).permute(2, 1, 0, 3)


def _prompt_first(maps: Tensor) -> Tensor:
    """(H, T, B, P) or (J, B, P) to (B, J, P), without copying."""
    return maps.flatten(0, -3).transpose(0, 1)
