"""TagCLIP's image encoder: a frozen CLIP that learns from prompts given to every block.

Visual prompt tuning in its deep form (Jia et al., ECCV 2022), as in ZegCLIP (Zhou et al., CVPR 2023) and TagCLIP (Li et
al.). Every block reads a few learned tokens beside the class token and the patch tokens; its output for the learned
tokens is dropped, and the next block gets its own.
"""

import math
from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.image_tower import ImageTower

DROPOUT = 0.1


@dataclass(frozen=True)
class EncodedWindows:
    """Embeddings of B windows in the space of the texts.

    Attributes:
        patches: unit vectors of the patches, float32 (B, D, h, w).
        images: unit vectors of the whole windows, float32 (B, D).
    """

    patches: Tensor
    images: Tensor


class PromptedTower(ImageTower):
    """The image tower of a CLIP with deep prompts.

    Args:
        visual: a stock CLIP tower whose image size is that of the windows it is to read.
        prompts: the number of prompts of every block: 10 for VOC as published, 100 for COCO-Stuff.
    """

    def __init__(self, visual: VisionTransformer, prompts: int) -> None:
        super().__init__(visual, position_rule="bilinear")
        width = self.conv1.out_channels
        self.prompt_embeddings = nn.Parameter(torch.empty(1, prompts, width))
        self.deep_prompt_embeddings = nn.Parameter(torch.empty(len(self.blocks) - 1, prompts, width))
        self.prompt_proj = nn.Linear(width, width)
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        self.prompt_dropout = nn.Dropout(DROPOUT)

    def start_prompts(self) -> None:
        """Give the tower fresh prompts, as published training begins with."""
        bound = math.sqrt(6 / (self.conv1.weight[0].numel() + self.conv1.out_channels))
        for prompts in (self.prompt_embeddings, self.deep_prompt_embeddings):
            nn.init.uniform_(prompts, -bound, bound)
        nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out")
        nn.init.zeros_(self.prompt_proj.bias)

    def class_token(self) -> Tensor:
        """Twice the class embedding (W,): the released code adds it twice, and its weights were trained so."""
        return 2 * self.class_embedding

    def forward(self, pixels: Tensor) -> EncodedWindows:
        """Embeddings of normalised windows (B, 3, H, W), H and W multiples of the patch size."""
        patches, grid = self.patchify(pixels)
        tokens = self.embed(patches, grid)
        count = tokens.shape[1]
        for index, prompts in enumerate(self._prompts(len(tokens))):
            # The published model has prompts after the class token; attention does not depend on the order.
            tokens = self.run_blocks(torch.cat([tokens, prompts], 1), index, index + 1, queries=count)
        embeddings = F.normalize(self.project(self.prompt_norm(tokens)), dim=-1)
        return EncodedWindows(embeddings[:, 1:].mT.unflatten(2, grid), embeddings[:, 0])

    def _prompts(self, batch: int) -> list[Tensor]:
        """The prompts of each block, (batch, n, W)."""
        projected = self.prompt_proj(torch.cat([self.prompt_embeddings, self.deep_prompt_embeddings]))
        return [self.prompt_dropout(prompts.expand(batch, -1, -1)) for prompts in projected]
