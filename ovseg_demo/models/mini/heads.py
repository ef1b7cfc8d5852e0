"""The trained heads of the mini model, from the image tower's features into the text space; see `train/mini/heads`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.mini.towers import ImageTower, TextTower

HIDDEN = 1024
"""Hidden channels of the projection head."""
WIDTH = 160
"""Channels of the dense head."""


class ProjectionHead(nn.Module):
    """Pooled features to unit vectors in the text space: a linear map and a residual MLP.

    Args:
        features: channels of the pooled features, which are standardised over the training views.
        texts: dimensions of the text space.
        hidden: hidden channels of the MLP.
        dropout: share of channels dropped in training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int, texts: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.linear = nn.Linear(features, texts, bias=False)
        self.expand = nn.Linear(features, hidden)
        self.contract = nn.Linear(hidden, texts)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def standardise(self, features: Tensor) -> None:
        """Set mean and spread to the mean and the standard deviation of training features (N, features)."""
        self.mean.copy_(features.mean(0))
        self.spread.copy_(features.std(0) + _SMALL_SPREAD)

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) to unit vectors (N, texts)."""
        x = self.dropout((features - self.mean) / self.spread)
        return F.normalize(self.linear(x) + self.contract(self.dropout(F.gelu(self.expand(x)))), dim=-1)


_SMALL_SPREAD = 0.05  # about a tenth of the usual deviation; bounds standardised features that are nearly always zero


def lateral(channels: int, width: int) -> nn.Sequential:
    """Brings a map of the image tower, (B, channels, H, W), to `width` channels, normalised over the whole map."""
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(1, width))


def doubled(x: Tensor) -> Tensor:
    """Maps (B, C, H, W), interpolated bilinearly to twice the height and width."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class DenseHead(nn.Module):
    """The image tower's pyramid to a unit vector in the text space at every fourth pixel.

    A feature pyramid network (Lin et al. 2017): from the coarsest level down, each level is added to the upsampled
    coarser result and mixed. The mean of the coarsest level is added everywhere, as a summary of the whole photo.

    Args:
        channels: channels of the pyramid's levels, finest first.
        texts: dimensions of the text space.
        width: channels inside.
    """

    def __init__(self, channels: tuple[int, ...], texts: int, width: int) -> None:
        super().__init__()
        self.texts = texts
        self.lateral = nn.ModuleList(lateral(c, width) for c in channels)
        self.whole = nn.Linear(channels[-1], width)
        self.mix = nn.ModuleList(Mix(width) for _ in channels[1:])
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.GroupNorm(1, width), nn.GELU()
        )
        self.out = nn.Linear(width, texts)

    def maps(self, pyramid: list[Tensor]) -> Tensor:
        """Features at stride 4 from the image tower's pyramid.

        Args:
            pyramid: maps (B, C_i, H / s, W / s) of strides s = 4, 8, 16, 32, finest first.

        Returns:
            (B, width, H / 4, W / 4).
        """
        coarse = pyramid[-1]
        x = self.lateral[-1](coarse) + self.whole(coarse.mean((2, 3)))[..., None, None]
        x = self.mix[-1](x)
        for level in reversed(range(len(pyramid) - 1)):
            x = doubled(x) + self.lateral[level](pyramid[level])
            if level:
                x = self.mix[level - 1](x)
        return self.smooth(x)

    def embed(self, features: Tensor) -> Tensor:
        """Unit vectors (..., texts) of features (..., width)."""
        return F.normalize(self.out(features), dim=-1)


class Mix(nn.Module):
    """A residual block: a depthwise convolution, then an MLP across channels.

    Args:
        width: channels C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)
        self.norm = nn.GroupNorm(1, width)
        self.expand, self.contract = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x + self.contract(F.gelu(self.expand(self.norm(self.spatial(x)))))


class Heads(nn.Module):
    """Both heads, each with its mean embedding of training photos and the scale of its logits.

    The mean embedding is subtracted from the embedding of a region. Otherwise words that suit every photo would win.
    """

    projection_mean: Tensor
    projection_scale: Tensor
    dense_mean: Tensor
    dense_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.projection = ProjectionHead(ImageTower.WIDTH, TextTower.WIDTH, HIDDEN)
        self.dense = DenseHead(ImageTower.CHANNELS, TextTower.WIDTH, WIDTH)
        for name in ("projection", "dense"):
            self.register_buffer(f"{name}_mean", torch.zeros(TextTower.WIDTH))
            self.register_buffer(f"{name}_scale", torch.ones(()))

    def region_embeddings(self, features: Tensor) -> Tensor:
        """Embeddings (N, 384) of pooled features (N, 1280); their products with text embeddings are logits."""
        return self.projection_scale * (self.projection(features) - self.projection_mean)

    def dense_embeddings(self, pyramid: list[Tensor]) -> Tensor:
        """Embeddings (B, H / 4, W / 4, 384) of the image tower's pyramid; their products with texts are logits."""
        embedded = self.dense.embed(self.dense.maps(pyramid).movedim(1, -1))
        return self.dense_scale * (embedded - self.dense_mean)
