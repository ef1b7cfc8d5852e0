"""Mask prompt tuning: learned tokens replace the patch tokens that a mask leaves out.

OVSeg (Liang et al. 2023, section 3.4).
"""

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.image_tower import ImageTower

DEPTH = 3
"""Number of blocks with mask prompts as published: before each of the first three, prompts replace patch tokens."""

_INITIAL_STD = 0.02


class MaskPromptedTower(ImageTower):
    """The image tower of a CLIP that reads crops together with their masks.

    After `clip.visual = MaskPromptedTower(clip.visual, prompts)` the tensors of `clip` are named as in the released
    files, `visual.mask_embedding` among them.

    Args:
        visual: a stock CLIP tower.
        prompts: float32 (depth, T, W) for T patches and width W, or (depth, 1, W) for one prompt at all patches; None
            makes the tower without prompts.
    """

    mask_embedding: nn.Parameter | None

    def __init__(self, visual: VisionTransformer, prompts: Tensor | None = None) -> None:
        super().__init__(visual)
        self.register_parameter("mask_embedding", None if prompts is None else nn.Parameter(prompts))

    def initialise_prompts(self) -> None:
        """Draw the initial prompts of published training, from N(0, 0.02^2) for the first DEPTH blocks."""
        tokens, width = self.positional_embedding.shape
        prompts = torch.empty(DEPTH, tokens - 1, width, device=self.positional_embedding.device)
        self.mask_embedding = nn.Parameter(nn.init.normal_(prompts, std=_INITIAL_STD))

    def forward(self, pixels: Tensor, masks: Tensor | None = None) -> Tensor:
        """Embeddings (B, D), not normalised, of normalised crops (B, 3, S, S).

        Positions are added to prompts as to patches.

        Args:
            pixels: the crops.
            masks: (B, S, S), nonzero inside; a batch of one mask serves all crops, and a mask may be empty. With None
                the crops are embedded without prompts.

        Raises ValueError for masks when the tower has no prompts.
        """
        if masks is None:
            return super().forward(pixels)
        if self.mask_embedding is None:
            raise ValueError("This tower has no mask prompts.")
        inside = patches_inside(masks, self.patch_size)[..., None]
        first, *deeper = self.mask_embedding[: len(self.blocks)]
        patches, grid = self.patchify(pixels)
        tokens = self.embed(torch.where(inside, patches, first), grid)
        for index, prompts in enumerate(deeper):
            tokens = self.run_blocks(tokens, index, index + 1)
            tokens = torch.cat([tokens[:, :1], torch.where(inside, tokens[:, 1:], prompts)], 1)
        return self.pool(tokens, start=len(deeper))


def patches_inside(masks: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """The patches that keep their tokens, because at least one of their pixels is inside the mask.

    The released adapter writes this as ceil(average pool), which for binary masks is the same.

    Args:
        masks: (B, S, S), nonzero inside.
        patch_size: height and width of a patch in pixels.

    Returns:
        bool (B, T).
    """
    return F.max_pool2d(masks[:, None].float(), patch_size).flatten(1) > 0
