"""SegCLIP's image tower: a CLIP whose patches gather to a few regions before its last blocks."""

from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from ovseg_demo.methods.segclip.group_module import Grouping, SemanticGroupModule
from ovseg_demo.models.clip.image_tower import ImageTower
from ovseg_demo.models.clip.positions import Grid

PATCH_BLOCKS = 10
"""Number of blocks before the semantic group module, as published; the other two blocks of ViT-B see regions."""


@dataclass(frozen=True)
class RegionEmbeddings:
    """The R regions of each of B images, in the space of the text embeddings.

    Attributes:
        regions: embeddings of the regions, not normalised, float (B, R, D).
        images: embeddings of the whole images, not normalised, float (B, D).
        grouping: how the patches, in rows, gather to the regions.
        grid: the patches of each image along its height and its width.
    """

    regions: Tensor
    images: Tensor
    grouping: Grouping
    grid: Grid


class GroupingTower(ImageTower):
    """The image tower of SegCLIP (Luo et al. 2023, section 2.1).

    The blocks up to PATCH_BLOCKS see patches without the class token, the blocks after them see regions. The greatest
    value of each channel over the regions takes the place of the class token, whose embedding is therefore not used.

    Args:
        visual: a stock CLIP tower with more than PATCH_BLOCKS blocks.
    """

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__(visual, "bicubic")
        self.group = SemanticGroupModule(self.conv1.out_channels)

    def forward(self, pixels: Tensor) -> RegionEmbeddings:
        """The regions of normalised images (B, 3, H, W), H and W at least a patch."""
        patches, grid = self.patch_tokens(pixels)
        grouping = self.gather(patches)
        regions = self.run_blocks(grouping.regions, PATCH_BLOCKS)
        projected = self.project(torch.cat([regions.amax(1, keepdim=True), regions], 1))
        return RegionEmbeddings(projected[:, 1:], projected[:, 0], grouping, grid)

    def patch_tokens(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Tokens (B, h * w, W) before the first block, and their grid (h, w), of normalised images (B, 3, H, W)."""
        patches, grid = self.patchify(pixels)
        return self.embed(patches, grid)[:, 1:], grid

    def gather(self, patches: Tensor) -> Grouping:
        """The regions of all or some patches of each image, (B, L, W), given before the first block."""
        return self.group(self.run_blocks(patches, stop=PATCH_BLOCKS))
