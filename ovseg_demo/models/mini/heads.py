"""What was trained: heads that carry the image tower's features into the text space. `train/mini/heads` trains them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.mini.towers import ImageTower, TextTower

HIDDEN = 1024
WIDTH = 160


class ProjectionHead(nn.Module):
    """Pooled features (N, features) to unit vectors in the text space (N, texts).

    A linear map and a residual perceptron, on features standardised over the training views.
    """

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
        """Take mean and spread from training features (N, features)."""
        self.mean.copy_(features.mean(0))
        self.spread.copy_(features.std(0) + _SMALL_SPREAD)

    def forward(self, features: Tensor) -> Tensor:
        x = self.dropout((features - self.mean) / self.spread)
        return F.normalize(self.linear(x) + self.contract(self.dropout(F.gelu(self.expand(x)))), dim=-1)


_SMALL_SPREAD = 0.05  # about a tenth of the usual; keeps features that are nearly always zero from exploding


class DenseHead(nn.Module):
    """The image tower's pyramid to a unit vector in the text space at every fourth pixel.

    Top-down, as in feature pyramid networks (Lin et al. 2017): each level is added to the upsampled coarser one and
    mixed; the mean of the coarsest level tells every place what the whole photo is about.
    """

    def __init__(self, channels: tuple[int, ...], texts: int, width: int) -> None:
        super().__init__()
        self.texts = texts
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(1, width)) for c in channels)
        self.whole = nn.Linear(channels[-1], width)
        self.mix = nn.ModuleList(Mix(width) for _ in channels[1:])
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.GroupNorm(1, width), nn.GELU()
        )
        self.out = nn.Linear(width, texts)

    def maps(self, pyramid: list[Tensor]) -> Tensor:
        """Features (B, width, H / 4, W / 4) of maps at strides 4, 8, 16 and 32, finest first."""
        coarse = pyramid[-1]
        x = self.lateral[-1](coarse) + self.whole(coarse.mean((2, 3)))[..., None, None]
        x = self.mix[-1](x)
        for level in reversed(range(len(pyramid) - 1)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear") + self.lateral[level](pyramid[level])
            if level:
                x = self.mix[level - 1](x)
        return self.smooth(x)

    def embed(self, features: Tensor) -> Tensor:
        """Unit vectors (..., texts) of features (..., width)."""
        return F.normalize(self.out(features), dim=-1)


class Mix(nn.Module):
    """A depthwise convolution and a perceptron across channels, added to what comes in: (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)
        self.norm = nn.GroupNorm(1, width)
        self.expand, self.contract = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(F.gelu(self.expand(self.norm(self.spatial(x)))))


class Heads(nn.Module):
    """Both heads, each with the mean of what it says of training photos and the scale of its logits.

    Taking the mean away leaves what is particular about a region: without that, words that suit every photo win.
    """

    def __init__(self) -> None:
        super().__init__()
        self.projection = ProjectionHead(ImageTower.WIDTH, TextTower.WIDTH, HIDDEN)
        self.dense = DenseHead(ImageTower.CHANNELS, TextTower.WIDTH, WIDTH)
        for name in ("projection", "dense"):
            self.register_buffer(f"{name}_mean", torch.zeros(TextTower.WIDTH))
            self.register_buffer(f"{name}_scale", torch.ones(()))

    def regions(self, features: Tensor) -> Tensor:
        """Embeddings (N, 384) of pooled features (N, 1280); their products with texts are logits."""
        return self.projection_scale * (self.projection(features) - self.projection_mean)

    def places(self, pyramid: list[Tensor]) -> Tensor:
        """Embeddings (B, H / 4, W / 4, 384) of every fourth pixel; their products with texts are logits."""
        embedded = self.dense.embed(self.dense.maps(pyramid).movedim(1, -1))
        return self.dense_scale * (embedded - self.dense_mean)
