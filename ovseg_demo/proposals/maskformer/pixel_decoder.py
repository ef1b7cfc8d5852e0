"""MaskFormer's pixel decoder: a feature pyramid network (Lin et al. 2017) with group norms."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.proposals.maskformer.layers import ConvNorm


class PixelDecoder(nn.Module):
    """From the coarsest feature map to the finest: add the finer map to the upsampled result so far, and convolve.

    Tensor names number the maps from the finest, 1, to the coarsest: "adapter_i" projects map i to `width` channels,
    "layer_i" convolves the sum.

    Args:
        channels: channels of the backbone's feature maps, finest first.
        width: channels inside and of the mask features, a multiple of 32.
    """

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        *finer, coarsest = channels
        for i, count in enumerate(finer, 1):
            self.add_module(f"adapter_{i}", ConvNorm(count, width, 1, norm=_GroupNorm))
            self.add_module(f"layer_{i}", ConvNorm(width, width, 3, norm=_GroupNorm))
        self.add_module(f"layer_{len(channels)}", ConvNorm(coarsest, width, 3, norm=_GroupNorm))
        self.mask_features = nn.Conv2d(width, width, 3, padding=1)
        assert self.mask_features.bias is not None
        nn.init.zeros_(self.mask_features.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C_i, H / s, W / s), s = 4, 8, 16, 32, to mask features (B, width, H / 4, W / 4)."""
        *finer, coarsest = maps
        x = getattr(self, f"layer_{len(maps)}")(coarsest).relu_()
        for i in range(len(finer), 0, -1):
            lateral = getattr(self, f"adapter_{i}")(finer[i - 1])
            x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            x = getattr(self, f"layer_{i}")(x).relu_()
        return self.mask_features(x)


class _GroupNorm(nn.GroupNorm):
    """A group norm on contiguous maps: in channels_last order torch's sums on the CPU are a sixth as exact."""

    def __init__(self, width: int) -> None:
        super().__init__(32, width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous())
