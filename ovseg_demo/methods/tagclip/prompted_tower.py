"""TagCLIP's image encoder: a frozen CLIP tower with learned prompts for every block.

Visual prompt tuning in its deep form (Jia et al., ECCV 2022), as in ZegCLIP (Zhou et al., CVPR 2023) and TagCLIP (Li et
al.). In every block the class token and the patch tokens also attend to a few learned tokens, the prompts. The block's
output at the prompts is dropped, and the next block has prompts of its own.
"""

import math

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.decoder import DROPOUT
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings
from ovseg_demo.models.clip.image_tower import ImageTower


class PromptedTower(ImageTower):
    """The image tower of a CLIP with deep prompts.

    Args:
        visual: a stock CLIP tower whose image size is that of the windows.
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

    def initialise_prompts(self) -> None:
        """Draw the initial prompts of published training.

        Prompts are uniform within ±sqrt(6 / (3 * patch size² + W)), Xavier's bound for the patch embedding (Jia et al.
        2022); their projection is Kaiming's normal initialisation, its bias zero.
        """
        bound = math.sqrt(6 / (self.conv1.weight[0].numel() + self.conv1.out_channels))
        for prompts in (self.prompt_embeddings, self.deep_prompt_embeddings):
            nn.init.uniform_(prompts, -bound, bound)
        nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out")
        nn.init.zeros_(self.prompt_proj.bias)

    def class_token(self) -> Tensor:
        """Twice the class embedding (W,): the released code adds it twice, in training too."""
        return 2 * self.class_embedding

    def forward(self, pixels: Tensor) -> ImageEmbeddings:
        """Embeddings of normalised images (B, 3, H, W), H and W multiples of the patch size."""
        patches, grid = self.patchify(pixels)
        tokens = self.embed(patches, grid)
        count = tokens.shape[1]
        for index, prompts in enumerate(self._prompts(len(tokens))):
            # The published model has prompts after the class token; attention does not depend on the order.
            tokens = self.run_blocks(torch.cat([tokens, prompts], 1), index, index + 1, queries=count)
        embeddings = F.normalize(self.project(self.prompt_norm(tokens)), dim=-1)
        return ImageEmbeddings(embeddings[:, 1:].mT.unflatten(2, grid), embeddings[:, 0])

    def _prompts(self, batch: int) -> list[Tensor]:
        """The prompts of each block, (batch, n, W)."""
        projected = self.prompt_proj(torch.cat([self.prompt_embeddings, self.deep_prompt_embeddings]))
        return [self.prompt_dropout(prompts.expand(batch, -1, -1)) for prompts in projected]
