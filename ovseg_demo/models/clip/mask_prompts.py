"""Mask prompt tuning: learned tokens stand in for the patches that a mask leaves out (OVSeg, Liang et al. 2023)."""

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

DEPTH = 3
"""How many times the tokens are put in as published: before the first block, and after the first and second."""


class MaskPromptedTower(nn.Module):
    """The image tower of a CLIP whose crops come with masks.

    It takes over the layers and parameters of open_clip's tower under their own names. So after
    `clip.visual = MaskPromptedTower(clip.visual, prompts)` the tensors of `clip` are named as in the released files,
    `visual.mask_embedding` among them.

    Args:
        visual: a stock CLIP tower: patches, a class token, which is also what is read out, blocks.
        prompts: float32 (depth, T, W) for T patches and width W, or (depth, 1, W) for one token everywhere; None
            makes the plain tower.
    """

    def __init__(self, visual: VisionTransformer, prompts: Tensor | None = None) -> None:
        super().__init__()
        self.image_size, self.patch_size, self.output_dim = visual.image_size, visual.patch_size, visual.output_dim
        self.conv1 = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.ln_pre, self.transformer, self.ln_post = visual.ln_pre, visual.transformer, visual.ln_post
        self.proj = visual.proj
        self.register_parameter("mask_embedding", None if prompts is None else nn.Parameter(prompts))

    def start_prompts(self, depth: int = DEPTH, std: float = 0.02) -> None:
        """Give the tower fresh prompts from N(0, std^2), as published training begins with."""
        tokens, width = self.positional_embedding.shape
        fresh = torch.empty(depth, tokens - 1, width, device=self.positional_embedding.device)
        self.mask_embedding = nn.Parameter(nn.init.normal_(fresh, std=std))

    def forward(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        """Embeddings (B, D), not normalised, of normalised crops (B, 3, S, S).

        Args:
            masks: (B, S, S), nonzero inside; B may be 1 and a mask empty. None reads the crops without prompts.

        Raises ValueError for masks when the tower has no prompts.
        """
        if masks is not None and self.mask_embedding is None:
            raise ValueError("This tower has no mask prompts.")
        kept = None if masks is None else kept_patches(masks, self.patch_size)
        x = self._embedded(crops, kept)
        for depth, block in enumerate(self.transformer.resblocks[:-1], 1):
            x = block(x)
            if kept is not None and depth < len(self.mask_embedding):
                x = torch.cat([x[:, :1], self._prompted(x[:, 1:], kept, depth)], 1)
        return self.ln_post(self._class_token(x)) @ self.proj

    def _embedded(self, crops: Tensor, kept: Tensor | None) -> Tensor:
        """Tokens (B, 1 + T, W) before the first block. Positions are added to prompts as to patches."""
        patches = self.conv1(crops).flatten(2).mT
        if kept is not None:
            patches = self._prompted(patches, kept, 0)
        first = self.class_embedding.to(patches.dtype).expand(len(crops), 1, -1)
        return self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)

    def _prompted(self, patches: Tensor, kept: Tensor, depth: int) -> Tensor:
        """Patch tokens (B, T, W), with the prompts of a depth where they are not kept (B, T)."""
        return torch.where(kept[..., None], patches, self.mask_embedding[depth])

    def _class_token(self, x: Tensor) -> Tensor:
        """The class token (B, W) after the last block, from all tokens (B, 1 + T, W) before it."""
        return self.transformer.resblocks[-1](x)[:, 0]


def kept_patches(masks: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Which patches keep their content, bool (B, T): those with any pixel inside the masks (B, S, S).

    The released adapter writes this as ceil(average pool), which for binary masks is the same.
    """
    return F.max_pool2d(masks[:, None].float(), patch_size).flatten(1) > 0
