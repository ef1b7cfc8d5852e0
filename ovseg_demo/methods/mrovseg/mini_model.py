"""MROVSeg's idea on the maps of the mini model: fusion of slices and global view, and queries that read the result.

The frozen dense head turns the image tower's maps into features at stride 4, once for the global view and once for the
re-tiled maps of the slices. Its weights stand in this model too, so that the file does not depend on other heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.mini.heads import WIDTH, DenseHead
from ovseg_demo.models.mini.towers import ImageTower, TextTower

CELL = 8
"""Places along each side of the cell that a query begins from: stride 32 over stride 4."""

INITIAL_ATTENTION = 0.5
"""How much the slices weigh against the global view before training."""

_KERNEL = 5
_KEYS = 96
_HEADS, _LAYERS = 5, 2
_INITIAL_SHARPNESS, _INITIAL_THRESHOLD = 8.0, 0.4


class MiniFusion(nn.Module):
    """F = a * (H + DConv(H)) + (1 - a) * L, where H are features of the slices and L those of the global view.

    As equation 2 of the paper, except that the scale attention a reads both, and that the convolution is a residual.
    Both last layers are zero at first, so that F begins as a weighted mean of H and L.

    Args:
        width: channels W.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.across_slices = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        last = nn.Conv2d(width, width, 1)
        self.attention = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.GroupNorm(1, width), nn.GELU(), last)
        for layer in (self.across_slices, last):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0 if layer is not last else torch.tensor(INITIAL_ATTENTION).logit().item())

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The fused features and the scale attention, 0 to 1, where 1 trusts the slices; all are (B, W, h, w)."""
        high = high + self.across_slices(high)
        attention = self.attention(torch.cat([low, high], 1)).sigmoid()
        return torch.lerp(low, high, attention), attention


class PlaceQueries(nn.Module):
    """Queries that begin from the cells of a grid over the photo, each with a mask and a class embedding.

    MROVSeg's queries are learned vectors, which take far more photos to learn to differ. Here every query begins as the
    mean of the fused features in its cell, looks at the other queries, and finds the places that show the same thing.

    Args:
        width: channels W of the fused features.
        texts: D, dimensions of the text space.
    """

    def __init__(self, width: int = WIDTH, texts: int = TextTower.WIDTH) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, _HEADS, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, _LAYERS, nn.LayerNorm(width), enable_nested_tensor=False)
        self.key = nn.Linear(texts, _KEYS, bias=False)
        self.to_key, self.to_class = nn.Linear(width, _KEYS), nn.Linear(width, texts)
        self.sharpness = nn.Parameter(torch.tensor(_INITIAL_SHARPNESS).log())
        self.threshold = nn.Parameter(torch.tensor(_INITIAL_THRESHOLD))
        nn.init.orthogonal_(self.key.weight)
        for linear in (self.to_key, self.to_class):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, fused: Tensor, embedded: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The mask logits (B, Q, h, w) and the class embeddings (B, Q, D), unit vectors, of Q = hw / CELL² queries.

        Args:
            fused: features (B, W, h, w), both sides multiples of CELL.
            embedded: unit vectors in the text space, (B, D, h, w).
            mean: the mean embedding (D,), which is subtracted before places are compared.
        """
        places = embedded.flatten(2).mT
        queries = self.layers(F.avg_pool2d(fused, CELL).flatten(2).mT)
        seeds = self.key(F.avg_pool2d(embedded, CELL).flatten(2).mT - mean)
        wanted = F.normalize(F.normalize(seeds, dim=-1) + self.to_key(queries), dim=-1)
        cosines = wanted @ F.normalize(self.key(places - mean), dim=-1).mT
        masks = self.sharpness.exp() * (cosines - self.threshold)
        weights = masks.sigmoid()
        pooled = F.normalize(weights @ places, dim=-1)
        return masks.unflatten(2, fused.shape[2:]), F.normalize(pooled + self.to_class(queries), dim=-1)


@dataclass(frozen=True)
class MiniPrediction:
    """What the model says of B photos.

    Attributes:
        embeddings: unit vectors of places in the text space, (B, D, h, w).
        masks: mask logits of the queries, (B, Q, h, w).
        classes: class embeddings of the queries, unit vectors (B, Q, D).
        attention: how much each place trusts the slices, 0 to 1, the mean over channels, (B, h, w).
    """

    embeddings: Tensor
    masks: Tensor
    classes: Tensor
    attention: Tensor


class MiniMROVSegModel(nn.Module):
    """The dense head, the fusion of its features at two resolutions, and the queries.

    A place keeps its own embedding, and to a learned share takes the class embeddings of the queries whose masks it is
    in. The share is 0 at first, so that the model begins as the dense head at two resolutions.

    Attributes:
        mean, scale: as of `ovseg_demo.models.mini.heads.Heads`, of the dense head.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dense = DenseHead(ImageTower.CHANNELS, TextTower.WIDTH, WIDTH)
        self.register_buffer("mean", torch.zeros(TextTower.WIDTH))
        self.register_buffer("scale", torch.ones(()))
        self.fusion, self.queries = MiniFusion(), PlaceQueries()
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, low: Tensor, high: Tensor) -> MiniPrediction:
        """The prediction for features of the global view and of the slices, both (B, W, h, w), multiples of CELL."""
        fused, attention = self.fusion(low, high)
        own = self.dense.embed(fused.movedim(1, -1)).movedim(-1, 1)
        masks, classes = self.queries(fused, own, self.mean)
        weights = masks.sigmoid().flatten(2)
        voted = (classes.mT @ weights) / (1 + weights.sum(1, keepdim=True))
        embeddings = F.normalize(torch.lerp(own, voted.view_as(own), self.share), dim=1)
        return MiniPrediction(embeddings, masks, classes, attention.mean(1))
