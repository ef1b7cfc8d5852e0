"""Convolutions and linear layers for inference: batch norms folded in, activations computed on the way out.

On the CPU both run in oneDNN, by the operators that torch.compile lowers them to; called directly they need no
compiler and are fast from the first call. torch's own linear layer runs in MKL, which on AMD's processors reaches less
than half of oneDNN's speed (205 against 470 GFLOP/s on two cores of an EPYC Turin). Elsewhere torch's own run.
"""

from itertools import pairwise

import torch
from timm.layers import GELU, Conv2dSame, GELUTanh, pad_same
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
"""Activations as oneDNN's operators name them: operation, numbers, algorithm."""


class FusedConv(nn.Module):
    """A convolution and its activation."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if not _in_one_dnn(x):
            return self.activation(conv(x))
        if isinstance(conv, Conv2dSame):  # TensorFlow's padding depends on the input's size
            x = pad_same(x, conv.kernel_size, conv.stride, conv.dilation)
        return torch.ops.mkldnn._convolution_pointwise(
            x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups,
            *_ONE_DNN[type(self.activation)],
        )  # fmt: skip


class FusedLinear(nn.Module):
    """A linear layer and its activation."""

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
    """A layer for inference with copies of `weight` (out, in) and `bias` (out,) in `dtype`."""
    layer = nn.Linear(*weight.mT.shape, bias=bias is not None, device="meta")
    return FusedLinear(with_weights(layer, weight, bias, dtype), activation)


def with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Module:
    """The layer, which need not have weights yet, with these in `dtype` and without gradients."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(layer, name, nn.Parameter(value.detach().to(dtype), requires_grad=False))
    return layer


def fuse_layers(module: nn.Module) -> None:
    """Fuse, in place, each convolution with the batch norm after it, and the activation that timm's may carry.

    Linear layers are wrapped as well. The function of the module, in evaluation mode, stays the same.
    """
    for (name, child), (norm_name, norm) in pairwise([*module.named_children(), ("", None)]):
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
