"""The layers of SED's decoder for inference: channels last, products in a given precision, sums in float32.

Every layer computes the function of its namesake in `decoder`. Maps are (n, h, w, C) with n classes; between layers
they are float32.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.sed import decoder
from ovseg_demo.runtime.fused_layers import FusedConv, FusedLinear, fused_linear, with_weights

_LN2 = math.log(2)
_SQUARE = 4
"""Side of the squares of logits that a head computes at once."""


class Embedding:
    """The cost embedding, for cost maps without their mean.

    Args:
        conv: `Decoder.embed`.
        dtype: of the convolution.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self._float32_conv = conv
        self._conv = _conv(conv.weight, None, dtype, padding=conv.kernel_size[0] // 2)

    def base(self, mean: Tensor, size: tuple[int, int]) -> Tensor:
        """The contribution of the mean and of the bias to the cost embedding of every class.

        At the border it differs, because the mean is not added to the convolution's zero padding.

        Args:
            mean: of the cost map, (P,).
            size: (h, w).

        Returns:
            float32 (h, w, C).
        """
        return _channels_last(self._float32_conv(mean[None, :, None, None].expand(-1, -1, *size)))[0]

    def __call__(self, cost: Tensor, base: Tensor) -> Tensor:
        """The cost embedding, float32 (n, h, w, C).

        Args:
            cost: cost maps without their mean, (n, h, w, P).
            base: from `base`, (h, w, C).
        """
        return _channels_last(self._conv(_channels_first(cost))) + base


class CostSkips:
    """The projections of the cost map for the stages: each doubles the resolution of the one before.

    Args:
        steps: `Decoder.cost_skips`.
        dtype: of the products.
    """

    def __init__(self, steps: Sequence[nn.ConvTranspose2d], dtype: torch.dtype) -> None:
        first, *later = steps
        self._first_step, self._bias = _as_linear(first, dtype, bias=False), _bias(first).repeat(4)
        self._weight = first.weight
        self._later = [_as_linear(step, dtype, nn.ReLU()) for step in later]

    def bias(self, mean: Tensor) -> Tensor:
        """The contribution of the cost map's mean (P,) and of the bias to the first projection, (4 g,)."""
        return self._bias + torch.einsum("pgab,p->abg", self._weight, mean).flatten()

    def __call__(self, cost: Tensor, bias: Tensor, steps: int) -> Tensor:
        """Project cost maps.

        Args:
            cost: cost maps without their mean, (n, h, w, P).
            bias: from `bias`, (4 g,).
            steps: how many projections to apply, at least 1.

        Returns:
            (n, h * 2**steps, w * 2**steps, g).
        """
        x = _unfold((self._first_step(cost) + bias).relu_().to(cost.dtype))
        for step in self._later[: steps - 1]:
            x = _unfold(step(x))
        return x


class SpatialFusion:
    """`decoder.SpatialFusion`.

    Args:
        fusion: the layer.
        dtype: of the linear layers.
    """

    def __init__(self, fusion: decoder.SpatialFusion, dtype: torch.dtype) -> None:
        depthwise = fusion.depthwise
        # In half precision a depthwise convolution is no faster.
        self._depthwise = _conv(
            depthwise.weight,
            depthwise.bias,
            torch.float32,
            padding=depthwise.kernel_size[0] // 2,
            groups=depthwise.groups,
        )
        self._norm, self._dtype = fusion.norm, dtype
        self._fc1 = fused_linear(fusion.fc1.weight, fusion.fc1.bias, dtype, nn.GELU())
        scale = fusion.layer_scale
        self._fc2 = fused_linear(fusion.fc2.weight * scale[:, None], fusion.fc2.bias * scale, dtype)

    def add_to(self, x: Tensor) -> None:
        """Apply the block to x (n, h, w, C) in place."""
        mixed = self._norm(_channels_last(self._depthwise(_channels_first(x)))).to(self._dtype)
        x += self._fc2(self._fc1(mixed))


class ClassAttention:
    """`decoder.ClassAttention` without pooling.

    The small products of the heads are computed as one large product in which products between different heads are set
    to zero, with the divisor repeated for each channel: more arithmetic, but in far fewer and larger pieces.

    Args:
        attention: the layer.
        dtype: of the linear layers and products.
    """

    def __init__(self, attention: decoder.ClassAttention, dtype: torch.dtype) -> None:
        self._norm, self._mlp_norm, self._dtype = attention.norm, attention.mlp_norm, dtype
        query, key, value = attention.query, attention.key, attention.value
        # Scaled for `_positive`. Queries and keys are not one layer, because the product with keys is three times as
        # fast on contiguous tensors.
        self._query, self._key = (fused_linear(layer.weight / _LN2, layer.bias / _LN2, dtype) for layer in (query, key))
        self._value = fused_linear(value.weight, value.bias, dtype)
        self._fc1 = fused_linear(attention.fc1.weight, attention.fc1.bias, dtype, nn.ReLU())
        self._fc2 = fused_linear(attention.fc2.weight, attention.fc2.bias, dtype)
        width, device = query.out_features, query.weight.device
        head = torch.arange(width, device=device) // (width // attention.heads)
        self._same_head = (head[:, None] == head).to(dtype)

    def add_to(self, x: Tensor) -> None:
        """Apply the layer in place to x (T, L, C), all classes at L positions."""
        x = x.transpose(0, 1)
        y = x + self._attended(self._norm(x.contiguous()).to(self._dtype))
        y += self._fc2(self._fc1(self._mlp_norm(y).to(self._dtype)))
        x += y

    def _attended(self, y: Tensor) -> Tensor:
        query, key = (_positive(project(y).float()).to(y.dtype) for project in (self._query, self._key))
        sums = (key.mT @ self._value(y)) * self._same_head
        keys = key.sum(1, dtype=torch.float32).to(y.dtype)[:, :, None] * self._same_head
        attended, weight = (query @ torch.cat([sums, keys], -1)).float().chunk(2, -1)
        return attended / (weight + decoder.TINY)


class Upsampling:
    """The second half of `decoder.Stage`: upsampling and fusion with finer features.

    The upsampling `up` and the first convolution after it are linear, and this convolution is a sum over the parts of
    its concatenated input. So `up` and its part of the convolution become one transposed convolution, and the part of
    the image features, which is the same for all classes, is computed once.

    Args:
        stage: the stage.
        dtype: of the convolutions.
    """

    def __init__(self, stage: decoder.Stage, dtype: torch.dtype) -> None:
        first, second = (cast(nn.Conv2d, stage.mix[index]) for index in (0, 3))
        self._norm, self._last_norm = (cast(nn.GroupNorm, stage.mix[index]) for index in (1, 4))
        self._dtype, self._up_bias = dtype, _bias(stage.up)
        width, guide = stage.up.out_channels, (first.in_channels - stage.up.out_channels) // 2
        up_weight, skip_weight, cost_weight = first.weight.split([width, guide, guide], 1)
        self._base_weight = torch.cat([up_weight, skip_weight], 1)
        self._upsample = _compose(stage.up.weight, up_weight).to(dtype)
        self._cost = _conv(cost_weight, None, dtype, padding=1)
        self._second = _conv(second.weight, None, dtype, padding=1)

    def base(self, skip: Tensor) -> Tensor:
        """The contribution of projected image features (g, 2h, 2w) and of the bias to every class, (2h, 2w, C')."""
        up_bias = self._up_bias[:, None, None].expand(-1, *skip.shape[-2:])
        return _channels_last(F.conv2d(torch.cat([up_bias, skip])[None], self._base_weight, padding=1))[0]

    def __call__(self, x: Tensor, cost_skip: Tensor, base: Tensor) -> Tensor:
        """Upsample and fuse.

        Args:
            x: cost embedding of n classes, (n, h, w, C).
            cost_skip: projected cost map of these classes, (n, 2h, 2w, g).
            base: from `base`, (2h, 2w, C').

        Returns:
            float32 (n, 2h, 2w, C').
        """
        # Half precision is slower in everything but products.
        y = F.conv_transpose2d(_channels_first(x.to(self._dtype)), self._upsample, stride=2, padding=1).float()
        y += _channels_first(base[None])
        y += self._cost(_channels_first(cost_skip))
        y = self._second(_norm_relu(y, self._norm).to(self._dtype)).float()
        return _channels_last(_norm_relu(y, self._last_norm))


class Head:
    """A convolution to one channel, the logit.

    A square of logits is computed at once, as the channels of a larger convolution, since a single output channel would
    leave the processor's vector registers mostly empty.

    Args:
        conv: one of `Decoder.heads`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        weight = conv.weight.new_zeros(_SQUARE, _SQUARE, conv.in_channels, _SQUARE + 2, _SQUARE + 2)
        for row in range(_SQUARE):
            for column in range(_SQUARE):
                weight[row, column, :, row : row + 3, column : column + 3] = conv.weight[0]
        bias = _bias(conv).repeat(_SQUARE**2)
        self._conv = _conv(weight.flatten(0, 1), bias, torch.float32, padding=0, stride=_SQUARE)

    def __call__(self, x: Tensor) -> Tensor:
        """The cost embedding of n classes, (n, h, w, C), to logits (n, h, w), both float32."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 1, 1 + -width % _SQUARE, 1, 1 + -height % _SQUARE))
        return F.pixel_shuffle(self._conv(_channels_first(padded)), _SQUARE)[:, 0, :height, :width]


def _positive(x: Tensor) -> Tensor:
    """elu(x * ln 2) + 1 of float32 x, in place; six times as fast as torch's elu, whose exponential is slow."""
    return x.clamp_max(0).exp2_().add_(x.relu_(), alpha=_LN2)


def _compose(up: Tensor, conv: Tensor) -> Tensor:
    """A transposed 2 x 2 convolution of stride 2 and a 3 x 3 convolution after it as one transposed convolution.

    Pixel 2i + a of the finer map comes from pixel i of the coarser map; tap d of the 3 x 3 kernel adds it to pixel
    2i + a + 1 - d.

    Args:
        up: weight of the transposed convolution, (I, U, 2, 2).
        conv: weight of the convolution, (O, U, 3, 3).

    Returns:
        The weight of the transposed convolution, (I, O, 4, 4); its stride is 2, its padding 1.
    """
    kernel = up.new_zeros(len(up), len(conv), 4, 4)
    for a in range(2):
        for b in range(2):
            taps = torch.einsum("iu,oude->iode", up[:, :, a, b], conv)
            kernel[:, :, a : a + 3, b : b + 3] += taps.flip(2, 3)
    return kernel


def _as_linear(
    up: nn.ConvTranspose2d, dtype: torch.dtype, activation: nn.Module | None = None, bias: bool = True
) -> FusedLinear:
    """A transposed 2 x 2 convolution of stride 2 as a linear layer, before `_unfold`."""
    weight = up.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return fused_linear(weight, _bias(up).repeat(4) if bias else None, dtype, activation)


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


def _unfold(x: Tensor) -> Tensor:
    """(n, h, w, 4g) to (n, 2h, 2w, g)."""
    count, height, width, _ = x.shape
    return x.unflatten(-1, (2, 2, -1)).transpose(2, 3).reshape(count, 2 * height, 2 * width, -1)


def _norm_relu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps).relu_()


def _channels_first(x: Tensor) -> Tensor:
    """(n, h, w, C) to (n, C, h, w) in the same memory."""
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """(n, C, h, w) to (n, h, w, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def _conv(
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    *,
    padding: int,
    groups: int = 1,
    stride: int = 1,
) -> FusedConv:
    """A convolution for inference from its weight (out, in / groups, kh, kw) and bias (out,), converted to `dtype`."""
    out, channels, height, width = weight.shape
    conv = nn.Conv2d(
        channels * groups, out, (height, width), stride, padding, groups=groups, bias=bias is not None, device="meta"
    )
    return FusedConv(with_weights(conv, weight.contiguous(memory_format=torch.channels_last), bias, dtype))
