"""Hierarchical mask decoding (section 3.5) and the decoupled attention masks of both resolutions (section 3.6)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.slices import resize_map


class MLP(nn.Module):
    """Linear layers with ReLU between them, from (..., sizes[0]) to (..., sizes[-1]).

    Args:
        sizes: channels before the first layer and after each.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        return self._after_first(self.linear_layers()[0](x))

    def of_pair(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """The output (B, h, w, sizes[-1]) for the channels of two maps together, of which the second is enlarged.

        Linear layers and bilinear interpolation commute, so the second map is enlarged after its half of the first
        layer, when it has fewer channels.

        Args:
            fine: (B, h, w, C).
            coarse: (B, h', w', sizes[0] - C), of at most that height and width.
        """
        first = self.linear_layers()[0]
        of_fine, of_coarse = first.weight.tensor_split([fine.shape[3]], 1)
        added = resize_map(F.linear(coarse, of_coarse), (fine.shape[1], fine.shape[2]))
        return self._after_first(F.linear(fine, of_fine, first.bias) + added)

    def linear_layers(self) -> list[nn.Linear]:
        """The layers, in order."""
        return [cast(nn.Linear, layer) for layer in self.layers]

    def _after_first(self, x: Tensor) -> Tensor:
        for layer in self.linear_layers()[1:]:
            x = layer(F.relu(x))
        return x


class Doubling(nn.Module):
    """A transposed convolution that doubles a map, with a map of half its size beside it, then norm and GELU.

    A transposed convolution of kernel 2 and stride 2 is a linear layer at each place, whose output is four neighbouring
    places. Linear layers and bilinear interpolation commute, so the second map, which the paper enlarges first, passes
    through its half of the layer at its own size.

    Args:
        width: D, channels of either map and of the output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.norm = nn.LayerNorm(width)
        self.act = nn.GELU()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """A map (B, 2h, 2w, D) of a map x (B, h, w, D) and another one (B, h', w', D), which is enlarged to h, w."""
        (of_x, bias), of_skip = self.as_linear()
        added = resize_map(F.linear(skip, of_skip), (x.shape[1], x.shape[2]))
        return self.act(self.norm(unfold(F.linear(x, of_x, bias) + added)))

    def as_linear(self) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The convolution as linear layers to four places: weight (4D, D) and bias (4D,) for x, weight for `skip`."""
        weight = self.conv.weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
        of_x, of_skip = weight.chunk(2, 1)
        assert self.conv.bias is not None
        return (of_x, self.conv.bias.repeat(4)), of_skip


def unfold(x: Tensor) -> Tensor:
    """A map (B, h, w, 4 * D) at twice the size, (B, 2h, 2w, D): four neighbouring places, in rows, of each place."""
    batch, height, width, _ = x.shape
    return x.view(batch, height, width, 2, 2, -1).transpose(2, 3).reshape(batch, 2 * height, 2 * width, -1)


class HierarchicalMaskDecoder(nn.Module):
    """From the adapter's map and three fused maps to a map of four times the size.

    The paper has three scales (2, 4 and 8 times the map of the global view) and two transposed convolutions. Here the
    adapter's map is joined by the deepest fused map and doubled, joined by the middle one and doubled again, and last
    joined by the shallowest one; of these the MLP for pixels makes mask embeddings.

    Args:
        width: D, channels of all maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up1, self.up2 = Doubling(width), Doubling(width)

    def forward(self, adapted: Tensor, pyramid: Sequence[Tensor], mlp: MLP) -> Tensor:
        """Embeddings of pixels, (B, 4H', 4W', E).

        Args:
            adapted: the adapter's map, (B, H', W', D).
            pyramid: three fused maps, (B, H', W', D) each, from the shallowest layer to the deepest.
            mlp: from the channels of two maps, 2 D, to E.
        """
        shallow, middle, deep = pyramid
        return mlp.of_pair(self.up2(self.up1(adapted, deep), middle), shallow)


def max_pool(adapted: Tensor, size: tuple[int, int]) -> Tensor:
    """The adapter's map (B, H', W', D) at the size (h', w') of the global view's map, by the maximum (equation 6)."""
    return F.adaptive_max_pool2d(adapted.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


def attention_biases(masks: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Attention masks, equation 7: for every head the products of the queries with embeddings of the places.

    Args:
        masks: mask embeddings of the queries, (B, Q, E).
        keys: embeddings of the places, (B, h, w, S * heads * E), for S sets of attention masks.
        heads: of the recognition blocks.

    Returns:
        (S, B, heads, Q, h * w), logits that are added to those of attention.
    """
    batch, _, _, channels = keys.shape
    by_head = keys.view(batch, -1, channels // (heads * masks.shape[2]), heads, masks.shape[2])
    return torch.einsum("bqe,bpshe->sbhqp", masks, by_head)
