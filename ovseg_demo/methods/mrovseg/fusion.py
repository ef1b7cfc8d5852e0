"""Multi-resolution fusion: where each place of a photo trusts the slices, and where the global view (section 3.4)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.slices import resize_map


class MultiResolutionFusion(nn.Module):
    """One fusion module: F = Up(a) * DConv(H) + Up((1 - a) * L), equation 2 of the paper.

    H is the map of the slices, L that of the global view. The convolution, depthwise then pointwise, reads over the
    borders of the slices. The scale attention a = sigmoid(f(L)) has one value for each channel; 1 trusts the slices. At
    the start it is close to 1/2 everywhere.

    Args:
        width: D, channels of the fused map.
        clip_width: channels of CLIP's maps; where they are not D, a linear layer comes first.
        kernel: side of the depthwise convolution.
        norm: which maps are normalised over their channels: "high" H before the convolution, "both", or "none".
        source: the map that the scale attention is predicted from: "low", or "high" for H averaged to the size of L.
    """

    def __init__(
        self,
        width: int,
        clip_width: int,
        *,
        kernel: int = 3,
        norm: Literal["high", "both", "none"] = "high",
        source: Literal["low", "high"] = "low",
    ) -> None:
        super().__init__()
        self._source = source
        self.proj = input_projection(clip_width, width)
        self.norm = nn.LayerNorm(width) if norm != "none" else nn.Identity()
        self.low_norm = nn.LayerNorm(width) if norm == "both" else nn.Identity()
        self.dw = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.pw = nn.Linear(width, width)
        last = nn.Linear(width, width)
        nn.init.zeros_(last.bias)
        self.att = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), last)

    def forward(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse the maps of a layer.

        Args:
            high: H, the map of the slices, (B, H', W', clip_width).
            low: L, the map of the global view, (B, h', w', clip_width), of at most that height and width.

        Returns:
            The fused map (B, H', W', D), and the scale attention (B, h', w', D), 0 to 1.
        """
        high, low = self.proj(high), self.low_norm(self.proj(low))
        attention = self.att(low if self._source == "low" else _averaged(high, low)).sigmoid()
        size = (high.shape[1], high.shape[2])
        mixed = self.pw(self.dw(self.norm(high).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return resize_map(attention, size) * mixed + resize_map((1 - attention) * low, size), attention


class SlicesAlone(nn.Module):
    """In place of a fusion module: the map of the slices, with as many channels as the adapter has.

    Args:
        width: D, channels of the adapter.
        clip_width: channels of CLIP's maps.
    """

    def __init__(self, width: int, clip_width: int) -> None:
        super().__init__()
        self.proj = input_projection(clip_width, width)

    def forward(self, high: Tensor, low: Tensor) -> tuple[Tensor, None]:
        """The map of the slices, (B, H', W', D), of arguments as of `MultiResolutionFusion`."""
        return self.proj(high), None


def input_projection(clip_width: int, width: int) -> nn.Module:
    """From CLIP's channels to another number of channels; nothing where both are equal, as for ViT-B."""
    return nn.Identity() if clip_width == width else nn.Linear(clip_width, width)


def _averaged(high: Tensor, low: Tensor) -> Tensor:
    """The map H at the size of L, by the mean over each area."""
    size = (low.shape[1], low.shape[2])
    return F.adaptive_avg_pool2d(high.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
