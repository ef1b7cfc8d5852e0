"""ResNet-101c: the ResNet of He et al. 2016 with DeepLab's stem (Chen et al. 2017, "Rethinking Atrous Convolution").

Tensor names are Detectron2's. Batch norms are frozen: their statistics, scales and shifts are data, not parameters.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from ovseg_demo.proposals.maskformer.layers import ConvNorm

_EXPANSION = 4
"""Channels of a block's output over those of its 3 x 3 convolution."""


class ResNet(nn.Module):
    """Stem at stride 4, then stages res2 to res5 of bottleneck blocks.

    In each stage but res2 the first block has stride 2, in its 3 x 3 convolution. In res5 these convolutions are
    dilated by `multi_grid`.

    Args:
        width: channels of the 3 x 3 convolutions of res2, and of the stem's first two convolutions.
        depths: number of blocks of each of the four stages.
        multi_grid: dilation of each block of res5.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 23, 3),
        multi_grid: Sequence[int] = (1, 2, 4),
    ) -> None:
        super().__init__()
        self.channels = tuple(width * _EXPANSION * 2**i for i in range(4))
        """Channels of res2 to res5."""
        self.stem = Stem(width)
        dilations = [[1] * depth for depth in depths[:-1]] + [multi_grid]
        in_channels = 2 * width
        for i, (channels, grid) in enumerate(zip(self.channels, dilations, strict=True)):
            blocks = [
                Bottleneck(channels if j else in_channels, channels, stride=2 if i and j == 0 else 1, dilation=dilation)
                for j, dilation in enumerate(grid)
            ]
            self.add_module(f"res{i + 2}", nn.Sequential(*blocks))
            in_channels = channels
        for module in self.modules():
            if isinstance(module, ConvNorm):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W), H and W multiples of 32, to feature maps of strides 4, 8, 16 and 32."""
        x, maps = self.stem(images), []
        for i in range(len(self.channels)):
            x = getattr(self, f"res{i + 2}")(x)
            maps.append(x)
        return maps


class Stem(nn.Module):
    """Three 3 x 3 convolutions, the first of stride 2, and max pooling of stride 2.

    Args:
        width: channels of the first two convolutions; the third has twice as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width, 3, norm=FrozenBatchNorm2d, stride=2)
        self.conv2 = ConvNorm(width, width, 3, norm=FrozenBatchNorm2d)
        self.conv3 = ConvNorm(width, 2 * width, 3, norm=FrozenBatchNorm2d)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2 * width, H / 4, W / 4)."""
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv(x).relu_()
        return F.max_pool2d(x, 3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a residual connection, which is a convolution where the widths differ.

    Args:
        width: channels of the input.
        out_width: channels of the output.
        stride: of the 3 x 3 convolution.
        dilation: of the 3 x 3 convolution.
    """

    def __init__(self, width: int, out_width: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        inner = out_width // _EXPANSION
        if width != out_width:
            self.shortcut = ConvNorm(width, out_width, 1, norm=FrozenBatchNorm2d, stride=stride)
        else:
            self.shortcut = nn.Identity()
        self.conv1 = ConvNorm(width, inner, 1, norm=FrozenBatchNorm2d)
        self.conv2 = ConvNorm(inner, inner, 3, norm=FrozenBatchNorm2d, stride=stride, dilation=dilation)
        self.conv3 = ConvNorm(inner, out_width, 1, norm=FrozenBatchNorm2d)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, out_width, H / stride, W / stride)."""
        residual = self.conv3(self.conv2(self.conv1(x).relu_()).relu_())
        return (residual + self.shortcut(x)).relu_()
