"""The layers of SED's decoder for inference: channels last, products in a precision of choice, sums in float32.

Every layer computes what its namesake in `decoder` does. Maps are (n, h, w, C) with the n of some classes; what stays
of them between layers is float32.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.sed import decoder
from ovseg_demo.runtime.fused_layers import FusedConv, FusedLinear, fused_linear, with_weights

_LN2 = math.log(2)
_SQUARE = 4  # side of the squares of logits that a head computes at once


class Embedding:
    """The cost embedding of maps without their mean."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self._exact = conv
        self._conv = _conv(conv.weight, None, dtype, conv.padding)

    def base(self, mean: Tensor, size: tuple[int, int]) -> Tensor:
        """What the mean (P,) and the bias add at each place, float32 (h, w, C); the border sees less of the mean."""
        return _last(self._exact(mean[None, :, None, None].expand(-1, -1, *size)))[0]

    def __call__(self, cost: Tensor, base: Tensor) -> Tensor:
        """(n, h, w, P) to (n, h, w, C), float32."""
        return _last(self._conv(_first(cost))) + base


class CostSkips:
    """The cost map, twice as fine and narrower at each step."""

    def __init__(self, steps: nn.ModuleList, dtype: torch.dtype) -> None:
        first, *later = steps
        self._first, self._bias = _phases(first, dtype, bias=False), first.bias.repeat(4)
        self._weight = first.weight
        self._later = [_phases(step, dtype, nn.ReLU()) for step in later]

    def bias(self, mean: Tensor) -> Tensor:
        """What the mean (P,) and the bias add to the first step."""
        return self._bias + torch.einsum("pgab,p->abg", self._weight, mean).flatten()

    def __call__(self, cost: Tensor, bias: Tensor, steps: int) -> Tensor:
        """(n, h, w, P) without its mean to (n, h * 2**steps, w * 2**steps, g), after at least one step."""
        x = _unfolded((self._first(cost) + bias).relu_().to(cost.dtype))
        for step in self._later[: steps - 1]:
            x = _unfolded(step(x))
        return x


class SpatialFusion:
    """`decoder.SpatialFusion`."""

    def __init__(self, fusion: decoder.SpatialFusion, dtype: torch.dtype) -> None:
        depthwise = fusion.depthwise
        # In half precision this layer is no faster.
        self._depthwise = _conv(
            depthwise.weight, depthwise.bias, torch.float32, depthwise.padding, groups=depthwise.groups
        )
        self._norm, self._dtype = fusion.norm, dtype
        self._fc1 = fused_linear(fusion.fc1.weight, fusion.fc1.bias, dtype, nn.GELU())
        scale = fusion.layer_scale
        self._fc2 = fused_linear(fusion.fc2.weight * scale[:, None], fusion.fc2.bias * scale, dtype)

    def add_to(self, x: Tensor) -> None:
        """(n, h, w, C), in place."""
        mixed = self._norm(_last(self._depthwise(_first(x)))).to(self._dtype)
        x += self._fc2(self._fc1(mixed))


class ClassAttention:
    """`decoder.ClassAttention` without pooling.

    The heads' small products are done as one with the products between heads set to zero, and its divisor stands beside
    each channel: more arithmetic, in far fewer and larger pieces.
    """

    def __init__(self, attention: decoder.ClassAttention, dtype: torch.dtype) -> None:
        self._norm, self._mlp_norm, self._dtype = attention.norm, attention.mlp_norm, dtype
        query, key, value = attention.query, attention.key, attention.value
        # As `_positive` wants them. Separate layers: the product with keys is three times as fast on whole tensors.
        self._query, self._key = (fused_linear(each.weight / _LN2, each.bias / _LN2, dtype) for each in (query, key))
        self._value = fused_linear(value.weight, value.bias, dtype)
        self._fc1 = fused_linear(attention.fc1.weight, attention.fc1.bias, dtype, nn.ReLU())
        self._fc2 = fused_linear(attention.fc2.weight, attention.fc2.bias, dtype)
        width, device = query.out_features, query.weight.device
        head = torch.arange(width, device=device) // (width // attention.heads)
        self._same_head = (head[:, None] == head).to(dtype)

    def add_to(self, x: Tensor) -> None:
        """(T, L, C) with all classes at some places, in place."""
        x = x.transpose(0, 1)
        y = x + self._attended(self._norm(x.contiguous()).to(self._dtype))
        y += self._fc2(self._fc1(self._mlp_norm(y).to(self._dtype)))
        x += y

    def _attended(self, y: Tensor) -> Tensor:
        query, key = (_positive(project(y).float()).to(y.dtype) for project in (self._query, self._key))
        summed = (key.mT @ self._value(y)) * self._same_head
        keys = key.sum(1, dtype=torch.float32).to(y.dtype)[:, :, None] * self._same_head
        attended, weight = (query @ torch.cat([summed, keys], -1)).float().chunk(2, -1)
        return attended / (weight + decoder.TINY)


class Growth:
    """The second half of `decoder.Stage`: twice the resolution, finer features, half the channels.

    `up` and the first convolution after it are linear, and so is the sum over the parts of what is concatenated: `up`
    and its part of the convolution become one transposed convolution, and all that does not depend on the class is
    computed once.
    """

    def __init__(self, stage: decoder.Stage, dtype: torch.dtype) -> None:
        first, self._norm, _, second, self._last_norm, _ = stage.mix
        self._dtype, self._up_bias = dtype, stage.up.bias
        ups, guide = stage.up.weight.shape[1], (first.weight.shape[1] - stage.up.weight.shape[1]) // 2
        up_weight, skip_weight, cost_weight = first.weight.split([ups, guide, guide], 1)
        self._constant = torch.cat([up_weight, skip_weight], 1)
        self._grow = _composed(stage.up.weight, up_weight).to(dtype)
        self._cost = _conv(cost_weight, None, dtype, 1)
        self._second = _conv(second.weight, None, dtype, 1)

    def base(self, skip: Tensor) -> Tensor:
        """What the projected image features (g, 2h, 2w) add to each class, (2h, 2w, C')."""
        ups = self._up_bias[:, None, None].expand(-1, *skip.shape[-2:])
        return _last(F.conv2d(torch.cat([ups, skip])[None], self._constant, padding=1))[0]

    def __call__(self, x: Tensor, cost_skip: Tensor, base: Tensor) -> Tensor:
        """(n, h, w, C) and (n, 2h, 2w, g) to (n, 2h, 2w, C'), float32."""
        # Half precision is slower in all but products.
        y = F.conv_transpose2d(_first(x.to(self._dtype)), self._grow, stride=2, padding=1).float()
        y += _first(base[None])
        y += self._cost(_first(cost_skip))
        y = self._second(_normed(y, self._norm).to(self._dtype)).float()
        return _last(_normed(y, self._last_norm))


class Head:
    """A convolution to one channel. Squares of logits are the channels here: a single one leaves vectors empty."""

    def __init__(self, conv: nn.Conv2d) -> None:
        weight = conv.weight.new_zeros(_SQUARE, _SQUARE, conv.in_channels, _SQUARE + 2, _SQUARE + 2)
        for row in range(_SQUARE):
            for column in range(_SQUARE):
                weight[row, column, :, row : row + 3, column : column + 3] = conv.weight[0]
        self._conv = _conv(weight.flatten(0, 1), conv.bias.repeat(_SQUARE**2), torch.float32, 0, stride=_SQUARE)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, h, w, C) to logits (n, h, w), all float32."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 1, 1 + -width % _SQUARE, 1, 1 + -height % _SQUARE))
        return F.pixel_shuffle(self._conv(_first(padded)), _SQUARE)[:, 0, :height, :width]


def _positive(x: Tensor) -> Tensor:
    """elu(x * ln 2) + 1, using up float32 x; six times as fast as torch's elu, whose exponential is slow."""
    return x.clamp_max(0).exp2_().add_(x.relu_(), alpha=_LN2)


def _composed(up: Tensor, conv: Tensor) -> Tensor:
    """The kernel 4 x 4 that, with stride 2 and padding 1, does a transposed 2 x 2 and then a 3 x 3 convolution.

    Pixel 2i + a of the finer map comes from pixel i of the coarser one, and goes to 2i + a + 1 - d by tap d.
    """
    kernel = up.new_zeros(len(up), len(conv), 4, 4)
    for a in range(2):
        for b in range(2):
            taps = torch.einsum("iu,oude->iode", up[:, :, a, b], conv)
            kernel[:, :, a : a + 3, b : b + 3] += taps.flip(2, 3)
    return kernel


def _phases(
    up: nn.ConvTranspose2d, dtype: torch.dtype, activation: nn.Module | None = None, bias: bool = True
) -> FusedLinear:
    """A transposed 2 x 2 convolution with stride 2 as a linear layer, before `_unfolded`."""
    weight = up.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return fused_linear(weight, up.bias.repeat(4) if bias else None, dtype, activation)


def _unfolded(x: Tensor) -> Tensor:
    """(n, h, w, 4g) to (n, 2h, 2w, g)."""
    count, height, width, _ = x.shape
    return x.unflatten(-1, (2, 2, -1)).transpose(2, 3).reshape(count, 2 * height, 2 * width, -1)


def _normed(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps).relu_()


def _first(x: Tensor) -> Tensor:
    """(n, h, w, C) to (n, C, h, w) in the same memory."""
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    """(n, C, h, w) to (n, h, w, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def _conv(
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    padding: int | tuple[int, ...],
    *,
    groups: int = 1,
    stride: int = 1,
) -> FusedConv:
    out, channels, *kernel = weight.shape
    conv = nn.Conv2d(
        channels * groups, out, kernel, stride, padding, groups=groups, bias=bias is not None, device="meta"
    )
    return FusedConv(with_weights(conv, weight.contiguous(memory_format=torch.channels_last), bias, dtype))
