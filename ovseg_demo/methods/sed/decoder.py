"""SED's decoder: from a cost map to logits of every class, in three stages that each double the resolution.

Xie et al., "SED: A Simple Encoder-Decoder for Open-Vocabulary Semantic Segmentation", CVPR 2024, section 3.2. Shapes
are written with B images, T classes, P prompts (templates for the name of a class, each a channel of its cost map) and
the sides h, w of the cost map. Classes are independent of each other except in `ClassAttention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DecoderSizes:
    """The sizes of a decoder; the defaults are SED's with ConvNeXt-B.

    Attributes:
        prompts: P, channels of the cost map.
        skips: channels of the image features at 2, 4 and 8 times the resolution of the cost map.
        widths: channels of the cost embedding before the stages and after each; from the second on multiples of 16.
        guides: channels to which the image features, and likewise the cost map, are projected for each stage.
        heads: attention heads between classes.
    """

    prompts: int = 80
    skips: tuple[int, int, int] = (512, 256, 128)
    widths: tuple[int, int, int, int] = (128, 64, 32, 16)
    guides: tuple[int, int, int] = (32, 16, 8)
    heads: int = 4


_KERNEL = 9
_NORM_GROUP = 16  # channels of each group of the group norms
TINY = 1e-6
"""Keeps divisors from zero."""


def cost_map(dense: Tensor, texts: Tensor) -> Tensor:
    """Cosines between the image features at every position and every prompt of every class.

    Args:
        dense: image features (B, C, h, w).
        texts: text embeddings (T, P, C).

    Returns:
        (B, T, P, h, w) in [-1, 1].
    """
    cosines = torch.einsum("bchw,tpc->btphw", F.normalize(dense, dim=1), F.normalize(texts, dim=-1))
    return cosines.contiguous()


class Decoder(nn.Module):
    """Cost map and image features to logits, as trained and published: all classes at once.

    `optimised_decoder.OptimisedDecoder` computes the same function faster, in bounded memory, and with early rejection.

    Args:
        sizes: of the decoder.
    """

    def __init__(self, sizes: DecoderSizes = DecoderSizes()) -> None:
        super().__init__()
        self.sizes = sizes
        widths, guides = sizes.widths, sizes.guides
        self.embed = nn.Conv2d(sizes.prompts, widths[0], 7, padding=3)
        self.skips = nn.ModuleList(
            nn.Conv2d(channels, guide, 3, padding=1) for channels, guide in zip(sizes.skips, guides, strict=True)
        )
        costs = (sizes.prompts, *guides)
        self.cost_skips = nn.ModuleList(nn.ConvTranspose2d(costs[i], costs[i + 1], 2, stride=2) for i in range(3))
        self.stages = nn.ModuleList(Stage(widths[i], widths[i + 1], guides[i], sizes.heads) for i in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in widths)

    def forward(self, cost: Tensor, skips: Sequence[Tensor], pooling: int = 1) -> list[Tensor]:
        """Logits of each class before the stages and after each stage.

        The last logits are the result. The others serve training and early rejection; no gradient flows from them into
        the cost embedding.

        Args:
            cost: (B, T, P, h, w), see `cost_map`.
            skips: image features (B, C, 2h, 2w), (B, C', 4h, 4w), (B, C'', 8h, 8w).
            pooling: side of the squares over which features are averaged before the attention between classes. SED
                trains with 2; its published numbers are from 1.

        Returns:
            Four tensors (B, T, h, w), (B, T, 2h, 2w), (B, T, 4h, 4w), (B, T, 8h, 8w).
        """
        batch = cost.shape[0]
        cost_skip = cost.flatten(0, 1)
        x = self.embed(cost_skip)
        logits = [self.heads[0](x.detach())]
        for stage, project, project_cost, head, skip in zip(
            self.stages, self.skips, self.cost_skips, self.heads[1:], skips, strict=True
        ):
            cost_skip = project_cost(cost_skip).relu()
            x = stage(x, project(skip).relu(), cost_skip, pooling)
            logits.append(head(x if head is self.heads[-1] else x.detach()))
        return [maps.unflatten(0, (batch, -1))[:, :, 0] for maps in logits]


class Stage(nn.Module):
    """Spatial fusion, attention between classes, and fusion with finer features at twice the resolution.

    Args:
        width: C, channels of the input.
        out: C', channels of the output.
        guide: g, channels of the projected image features and of the projected cost map.
        heads: attention heads between classes.
    """

    def __init__(self, width: int, out: int, guide: int, heads: int) -> None:
        super().__init__()
        self.spatial = SpatialFusion(width)
        self.classes = ClassAttention(width, heads)
        self.up = nn.ConvTranspose2d(width, width - guide, 2, stride=2)
        self.mix = nn.Sequential(*_convolution(width + guide, out), *_convolution(out, out))

    def forward(self, x: Tensor, skip: Tensor, cost_skip: Tensor, pooling: int = 1) -> Tensor:
        """One stage of the decoder.

        Args:
            x: cost embedding (BT, C, h, w).
            skip: projected image features (B, g, 2h, 2w), the same for all classes of an image.
            cost_skip: projected cost map (BT, g, 2h, 2w).
            pooling: as in `Decoder.forward`.

        Returns:
            (BT, C', 2h, 2w).
        """
        batch = skip.shape[0]
        x = self.classes(self.spatial(x).unflatten(0, (batch, -1)), pooling).flatten(0, 1)
        repeated = skip.repeat_interleave(len(x) // batch, 0)
        return self.mix(torch.cat([self.up(x), repeated, cost_skip], 1))


def _convolution(channels: int, out: int) -> tuple[nn.Module, ...]:
    norm = nn.GroupNorm(out // _NORM_GROUP, out)
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)


class SpatialFusion(nn.Module):
    """A ConvNeXt block with a 9 x 9 kernel, on each class separately.

    Args:
        width: C, channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=TINY)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.layer_scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        mixed = self.norm(self.depthwise(x).movedim(1, -1))
        return x + (self.layer_scale * self.fc2(F.gelu(self.fc1(mixed)))).movedim(-1, 1)


class ClassAttention(nn.Module):
    """Linear attention (Katharopoulos et al. 2020) among the classes at each position, and an MLP.

    The transformer layer has residual connections of its own, and its output is added to its input once more, as
    published.

    Args:
        width: C, channels.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, pooling: int = 1) -> Tensor:
        """(B, T, C, h, w) to the same shape; `pooling` as in `Decoder.forward`."""
        batch, size = x.shape[0], x.shape[-2:]
        pooled = F.avg_pool2d(x.flatten(0, 1), pooling) if pooling > 1 else x.flatten(0, 1)
        tokens = self.tokens(pooled.unflatten(0, (batch, -1)).permute(0, 3, 4, 1, 2))
        y = tokens.permute(0, 3, 4, 1, 2)
        if pooling > 1:
            y = F.interpolate(y.flatten(0, 1), size, mode="bilinear", align_corners=True).unflatten(0, (batch, -1))
        return x + y

    def tokens(self, y: Tensor) -> Tensor:
        """The transformer layer on tokens (..., T, C), with attention among the T classes."""
        y = y + self._attended(self.norm(y))
        return y + self.fc2(self.fc1(self.mlp_norm(y)).relu())

    def _attended(self, y: Tensor) -> Tensor:
        query, key, value = (
            project(y).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        query, key = F.elu(query) + 1, F.elu(key) + 1
        count = y.shape[-2]  # dividing by the number of classes first keeps half precision from overflowing
        sums = torch.einsum("...thd,...the->...hde", key, value / count)
        weight = 1 / (torch.einsum("...thd,...hd->...th", query, key.sum(-3)) + TINY)
        return (torch.einsum("...thd,...hde,...th->...the", query, sums, weight) * count).flatten(-2)
