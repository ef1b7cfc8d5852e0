"""SegCLIP's reconstruction branch, for training: regions of a quarter of the patches must tell the pixels of the rest.

Luo et al. 2023, section 2.3, with the masked autoencoder of He et al. (CVPR 2022). Where the paper applies the linear
layer of equation 4 to the product of assignment and regions, the released code, which this follows, applies it to the
assignment alone, and QuickGELU in place of GELU.
"""

from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ovseg_demo.methods.segclip.group_module import HEAD_WIDTH, INITIAL_STD, REGIONS, Grouping, initialise_layers
from ovseg_demo.methods.segclip.image_tower import GroupingTower
from ovseg_demo.models.clip.blocks import TransformerBlock

MASKED_SHARE = 0.75
"""Share of the patches, the class token counted among them, that are hidden from the tower, as published."""

BLOCKS, DECODER_BLOCKS = 2, 3
"""Number of transformer blocks after the regions, and of the pixel decoder, as published."""

_DECODER_HEADS = 8
_LONGEST_PERIOD = 10_000


class _Norm(nn.LayerNorm):
    """The layer norm of the pixel decoder; CLIP's adds 1e-5."""

    def __init__(self, width: int, **placement: Any) -> None:
        super().__init__(width, eps=1e-6, **placement)


class PixelDecoder(nn.Module):
    """Predicts the pixels of all patches from tokens of some.

    Args:
        width: channels of the tokens; the decoder has half as many.
        patches: T, the number of patches of an image, a square number.
        values: the number of values of a patch, 3 * patch size² if they are its pixels.
        blocks: the number of transformer blocks.
    """

    positions: Tensor

    def __init__(self, width: int, patches: int, values: int, blocks: int = DECODER_BLOCKS) -> None:
        super().__init__()
        inner = width // 2
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.empty(1, 1, inner))
        self.register_buffer("positions", sine_positions(inner, round(patches**0.5))[None])
        self.blocks = nn.ModuleList(
            Block(inner, _DECODER_HEADS, qkv_bias=True, norm_layer=_Norm) for _ in range(blocks)
        )
        self.norm, self.predict = _Norm(inner), nn.Linear(inner, values)

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Predicted values of all patches, (B, T, values).

        Args:
            tokens: of the K kept patches of each image, (B, K, W).
            kept: the places of these patches in the image, int64 (B, K).
        """
        embedded = self.embed(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        whole, seen = embedded[:, :1], embedded[:, 1:]
        hidden = self.mask_token.expand(len(tokens), self.positions.shape[1] - 1, -1)
        patches = hidden.scatter(1, kept[..., None].expand_as(seen), seen.to(hidden))
        x = torch.cat([whole, patches], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))[:, 1:]


class ReconstructionBranch(nn.Module):
    """All that training needs beside the tower to predict hidden pixels from regions.

    Args:
        width: W, channels of the tower.
        patches: T, the number of patches of an image.
        values: the number of values of a patch, 3 * patch size² if they are its pixels.
        blocks: the number of transformer blocks after the regions, and of the decoder.
    """

    def __init__(
        self, width: int, patches: int, values: int, blocks: tuple[int, int] = (BLOCKS, DECODER_BLOCKS)
    ) -> None:
        super().__init__()
        self.mixing = nn.Linear(REGIONS, REGIONS)
        self.activation = QuickGELU()
        self.blocks = nn.ModuleList(
            TransformerBlock(ResidualAttentionBlock(width, width // HEAD_WIDTH, act_layer=QuickGELU))
            for _ in range(blocks[0])
        )
        self.decoder = PixelDecoder(width, patches, values, blocks[1])
        self.initialise()

    def initialise(self) -> None:
        """Draw the initial weights of published training."""
        nn.init.normal_(self.decoder.mask_token, std=INITIAL_STD)
        initialise_layers(self)

    def forward(self, tower: GroupingTower, pixels: Tensor, kept: Tensor) -> Tensor:
        """Predicted values of all patches, (B, T, 3 * patch size²).

        Args:
            tower: reads the kept patches and gathers them to regions.
            pixels: normalised images (B, 3, S, S) of T patches.
            kept: the places of the K patches of each image that the tower sees, int64 (B, K).
        """
        patches, _ = tower.patch_tokens(pixels)
        seen = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
        return self.predict(tower.gather(seen), kept)

    def predict(self, grouping: Grouping, kept: Tensor) -> Tensor:
        """Predicted values of all patches, (B, T, values), of the grouping of the kept ones, see `forward`."""
        tokens = self.activation(self.mixing(grouping.hard.mT) @ grouping.regions)
        for block in self.blocks:
            tokens = block(tokens)
        return self.decoder(tokens, kept)


def reconstruction_branch(tower: GroupingTower) -> ReconstructionBranch:
    """A branch with new weights for a tower."""
    patch, width = tower.conv1.weight[0].numel(), tower.conv1.out_channels
    return ReconstructionBranch(width, len(tower.positional_embedding) - 1, patch)


def draw_kept(images: int, patches: int, device: torch.device | str = "cpu") -> Tensor:
    """The places of the patches that the tower sees, drawn for each image: int64 (images, K).

    K is as published, 48 of 196: a quarter of the patches and the class token together, less the class token.
    """
    count = int((patches + 1) * (1 - MASKED_SHARE)) - 1
    return torch.rand(images, patches, device=device).argsort(1)[:, :count]


def reconstruction_loss(predicted: Tensor, pixels: Tensor, kept: Tensor) -> Tensor:
    """The mean squared difference of predicted and true normalised pixels over all patches that were hidden, a scalar.

    Args:
        predicted: (B, T, 3 * patch size²), of each patch its pixels in rows, of each pixel its channels.
        pixels: normalised images (B, 3, S, S).
        kept: the places of the patches that were not hidden, int64 (B, K).
    """
    side = round((predicted.shape[2] / 3) ** 0.5)
    true = pixels.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 4, 5, 1).reshape_as(predicted)
    hidden = torch.ones(predicted.shape[:2], dtype=torch.bool, device=kept.device).scatter(1, kept, False)
    return (predicted - true).square().mean(2)[hidden].mean()


def sine_positions(width: int, side: int) -> Tensor:
    """Fixed position embeddings of a grid of side * side patches, float32 (1 + side * side, width), as of He et al.

    The first is of the class token, and zero. The first half of the channels tells the column, the second the row:
    each the sines, then the cosines, of the number of the column or row at periods up to 2 pi * 10000.

    Args:
        width: a multiple of 4.
        side: of the grid.
    """
    quarter = width // 4
    places = torch.arange(side, dtype=torch.float64)
    angles = places[:, None] / _LONGEST_PERIOD ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    of_line = torch.cat([angles.sin(), angles.cos()], 1)
    columns, rows = of_line.repeat(side, 1), of_line.repeat_interleave(side, 0)
    return torch.cat([torch.zeros(1, width), torch.cat([columns, rows], 1).float()])
