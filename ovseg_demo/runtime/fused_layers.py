"""Convolutions and linear layers for inference: batch norms folded in, activations computed by the same operator.

On the CPU both layers run in oneDNN, by the operators to which torch.compile lowers them; called directly, these
operators need no compiler and are fast from the first call. torch's own linear layer runs in MKL, which on AMD's
processors reaches less than half of oneDNN's speed (205 against 470 GFLOP/s on two cores of an EPYC Turin). On other
devices, and where gradients are computed, torch's own operators run.
"""

from itertools import pairwise
from typing import TypeVar

import torch
from timm.layers.activations import GELU, GELUTanh
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_ONE_DNN = {
    nn.Identity: ("none", [], ""),
    nn.GELU: ("gelu", [], "none"),
    GELU: ("gelu", [], "none"),
    GELUTanh: ("gelu", [], "tanh"),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
}
"""Activations as arguments of oneDNN's operators: name, scalars, algorithm."""


Layer = TypeVar("Layer", bound=nn.Module)


class FusedConv(nn.Module):
    """A convolution and its activation, from (B, in, H, W) to (B, out, H', W').

    Args:
        conv: the convolution, which is kept, not copied.
        activation: follows it; None for no activation. On the CPU it must be of a type in `_ONE_DNN`.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if not _in_one_dnn(x):
            return self.activation(conv(x))
        if isinstance(conv, Conv2dSame):  # TensorFlow's padding depends on the input's size
            x = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
        return torch.ops.mkldnn._convolution_pointwise(
            x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups,
            *_ONE_DNN[type(self.activation)],
        )  # fmt: skip


class FusedLinear(nn.Module):
    """A linear layer and its activation, from (..., in) to (..., out).

    Args:
        linear: the layer, which is kept, not copied.
        activation: follows it; None for no activation. On the CPU it must be of a type in `_ONE_DNN`.
    """

    def __init__(self, linear: nn.Linear, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.linear, self.activation = linear, activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if not _in_one_dnn(x):
            return self.activation(self.linear(x))
        weight, bias = self.linear.weight, self.linear.bias
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *_ONE_DNN[type(self.activation)])


def fused_linear(
    weight: Tensor, bias: Tensor | None, dtype: torch.dtype, activation: nn.Module | None = None
) -> FusedLinear:
    """A linear layer for inference from its weights.

    Args:
        weight: (out, in).
        bias: (out,), or None for a layer without bias.
        dtype: of the layer's weights, which are converted, and its inputs.
        activation: as of `FusedLinear`.
    """
    layer = nn.Linear(*weight.mT.shape, bias=bias is not None, device="meta")
    return FusedLinear(with_weights(layer, weight, bias, dtype), activation)


def with_weights(layer: Layer, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Layer:
    """The layer itself, with other weights, which need no gradients.

    Args:
        layer: a module with the parameters "weight" and "bias", for instance on the device "meta".
        weight: its new weight, of the shape that the layer needs.
        bias: its new bias; None leaves the bias of the layer as it is.
        dtype: to which both are converted.
    """
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(layer, name, nn.Parameter(value.detach().to(dtype), requires_grad=False))
    return layer


def fuse_layers(module: nn.Module) -> None:
    """Fuse, in place, each convolution with the batch norm after it, and with the activation that timm's norm may have.

    Linear layers become FusedLinear. What the module computes in evaluation mode stays the same.

    Args:
        module: any module in which the child after a convolution, if it is a batch norm, is applied to its output.
    """
    for (name, child), (norm_name, norm) in pairwise([*module.named_children(), ("", nn.Identity())]):
        if isinstance(child, nn.Linear):
            setattr(module, name, FusedLinear(child))
        elif isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            folded = fuse_conv_bn_eval(child, norm).requires_grad_(False)
            setattr(module, name, FusedConv(folded, getattr(norm, "act", None)))
            setattr(module, norm_name, nn.Identity())
        else:
            fuse_layers(child)


def _in_one_dnn(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.backends.mkldnn.is_available() and not torch.is_grad_enabled()
