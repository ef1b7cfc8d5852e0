"""Layers that backbones, pixel decoder and transformer decoder share."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d


class ConvNorm(nn.Conv2d):
    """A convolution without bias, padded so that only its stride changes the size, and a norm on its output.

    Published weights name the norm's tensors after the convolution ("conv1.weight", "conv1.norm.weight").

    Args:
        width: channels of the input.
        out_width: channels of the output.
        kernel: side of the kernel, odd.
        norm: makes the norm from the number of its channels.
        stride: as in nn.Conv2d.
        dilation: as in nn.Conv2d.
    """

    def __init__(
        self,
        width: int,
        out_width: int,
        kernel: int,
        *,
        norm: Callable[[int], nn.Module],
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        padding = kernel // 2 * dilation
        super().__init__(width, out_width, kernel, stride, padding, dilation, bias=False)
        self.norm = norm(out_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, out_width, H / stride, W / stride)."""
        return self.norm(super().forward(x))

    @torch.no_grad()
    def fold(self) -> None:
        """Fold a frozen batch norm into the convolution's weight and bias; what the layer computes stays the same.

        Other norms are left as they are.
        """
        norm = self.norm
        if isinstance(norm, FrozenBatchNorm2d):
            mean, variance, scale, shift = map(norm.get_buffer, ("running_mean", "running_var", "weight", "bias"))
            self.weight, self.bias = fuse_conv_bn_weights(
                self.weight, self.bias, mean, variance, norm.eps, scale, shift
            )
            self.norm = nn.Identity()


class Mlp(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        *widths: channels of the input, of every hidden layer, and of the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        *hidden, last = self.layers
        for layer in hidden:
            x = layer(x).relu()
        return last(x)
