"""TagCLIP's image encoder: a frozen CLIP that learns from prompts put before every block.

Visual prompt tuning in its deep form (Jia et al., ECCV 2022), as in ZegCLIP (Zhou et al., CVPR 2023) and TagCLIP (Li et
al.). In every layer a few learned tokens stand between the class token and the patches; what a layer makes of them is
dropped and the next layer gets its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

DROPOUT = 0.1


@dataclass(frozen=True)
class EncodedWindows:
    """What is known of images.

    Attributes:
        patches: unit vectors of the places (B, D, h, w), in the space of the texts.
        images: unit vectors of the whole images (B, D).
    """

    patches: Tensor
    images: Tensor


class PromptedTower(nn.Module):
    """The image tower of a CLIP with deep prompts.

    It takes over the layers and parameters of open_clip's tower under their own names.

    Args:
        visual: a stock CLIP tower whose image size is that of the windows it is to read.
        prompts: the number of tokens in every layer: 10 for VOC as published, 100 for COCO-Stuff.
    """

    def __init__(self, visual: VisionTransformer, prompts: int) -> None:
        super().__init__()
        self.patch_size, self.output_dim = visual.patch_size, visual.output_dim
        self.conv1 = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.ln_pre, self.transformer, self.ln_post = visual.ln_pre, visual.transformer, visual.ln_post
        self.proj = visual.proj
        width = self.conv1.out_channels
        self.prompt_embeddings = nn.Parameter(torch.empty(1, prompts, width))
        self.deep_prompt_embeddings = nn.Parameter(torch.empty(len(self.transformer.resblocks) - 1, prompts, width))
        self.prompt_proj = nn.Linear(width, width)
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        self.prompt_dropout = nn.Dropout(DROPOUT)

    def start_prompts(self) -> None:
        """Fresh prompts, as published training begins with."""
        bound = math.sqrt(6 / (self.conv1.weight[0].numel() + self.conv1.out_channels))
        for prompts in (self.prompt_embeddings, self.deep_prompt_embeddings):
            nn.init.uniform_(prompts, -bound, bound)
        nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out")
        nn.init.zeros_(self.prompt_proj.bias)

    def forward(self, pixels: Tensor) -> EncodedWindows:
        """What is known of normalised images (B, 3, H, W), H and W multiples of the patch size."""
        x = self.conv1(pixels)
        batch, places = len(x), x.shape[2:]
        first = self.class_embedding.expand(batch, 1, -1)
        x = self.ln_pre(torch.cat([first, x.flatten(2).mT], 1) + self._positions(places))
        for prompts, block in zip(self._prompts(batch), self.transformer.resblocks, strict=True):
            x = self._through(block, x, prompts)
        x = F.normalize(self.ln_post(self.prompt_norm(x)) @ self.proj, dim=-1)
        return EncodedWindows(x[:, 1:].mT.unflatten(2, places), x[:, 0])

    def _through(self, block: nn.Module, x: Tensor, prompts: Tensor) -> Tensor:
        """The class token and patches (B, 1 + T, W) after a block, in which prompts (B, n, W) are with them.

        Attention does not care for order: here prompts come last, in the published model after the class token.
        """
        return block(torch.cat([x, prompts], 1))[:, : x.shape[1]]

    def _positions(self, places: torch.Size) -> Tensor:
        """What is added to the class token and to patches on another grid, (1, 1 + h w, W).

        The class embedding is in it once more: the released weights were trained with a class token that has it twice.
        """
        positions = resize_positions(self.positional_embedding, places)
        return torch.cat([positions[:1] + self.class_embedding, positions[1:]])[None]

    def _prompts(self, batch: int) -> list[Tensor]:
        """The tokens of each layer (B, n, W)."""
        made = self.prompt_proj(torch.cat([self.prompt_embeddings, self.deep_prompt_embeddings]))
        return [self.prompt_dropout(layer.expand(batch, -1, -1)) for layer in made]


def resize_positions(positions: Tensor, places: Sequence[int]) -> Tensor:
    """CLIP's position embeddings (1 + s s, W), those of patches on another grid (h, w): (1 + h w, W)."""
    side = math.isqrt(len(positions) - 1)
    grid = positions[1:].mT.unflatten(1, (side, side))[None]
    moved = F.interpolate(grid, tuple(places), mode="bilinear", align_corners=False)[0].flatten(1).mT
    return torch.cat([positions[:1], moved])
