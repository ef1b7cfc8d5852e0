"""CLIP's vision transformer in steps, so that a method changes one of them and keeps the others."""

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.positions import Grid, PositionRule, resize_positions, trained_grid


class ImageTower(nn.Module):
    """The image tower of a CLIP: patch embedding, class token and positions, transformer blocks, projection.

    It takes over the layers and parameters of open_clip's tower under their own names, and computes the same function.
    A method combines the steps, or derives a tower with parameters of its own:

    - tokens replaced or added before any block, features read between blocks: `run_blocks` from block to block;
    - another class token: override `class_token`;
    - tokens without the class token, or regions in place of patches: pass them to `run_blocks`;
    - another last block: stop before it and use its `queries_keys_values`, `merge_heads` and `feed_forward`; or set
      `blocks[-1]`;
    - other tokens that attend to the patches: call a block with `context`;
    - layers for inference: `optimised.optimise`.

    Args:
        visual: a stock CLIP tower, pooled by its class token; its transformer is used up.
        position_rule: how position embeddings are interpolated for images of another size than the trained one.

    Raises ValueError for a tower with other parts, such as attentional pooling or layer scale.

    Example:
        >>> from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
        >>> stock = VisionTransformer(32, patch_size=8, width=64, layers=3, heads=1, mlp_ratio=4.0, output_dim=16)
        >>> tower = ImageTower(stock).eval()
        >>> pixels = torch.zeros(2, 3, 24, 40)
        >>> tower(pixels).shape  # one embedding an image
        torch.Size([2, 16])
        >>> patches, grid = tower.patchify(pixels)
        >>> tokens = tower.run_blocks(tower.embed(patches, grid), stop=2)  # before the last block
        >>> grid, tower.project(tower.run_blocks(tokens, start=2)).shape  # the class token and every patch
        ((3, 5), torch.Size([2, 16, 16]))
    """

    def __init__(self, visual: VisionTransformer, position_rule: PositionRule = "bicubic") -> None:
        super().__init__()
        names = set(visual.state_dict())
        self.output_dim = visual.output_dim
        self.position_rule: PositionRule = position_rule
        self.conv1 = visual.conv1
        self.patch_size = (self.conv1.kernel_size[0], self.conv1.kernel_size[1])
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.ln_pre, self.transformer, self.ln_post = visual.ln_pre, visual.transformer, visual.ln_post
        self.proj = visual.proj
        for index, block in enumerate(self.blocks):
            if not isinstance(block, ResidualAttentionBlock):
                raise ValueError(f"This is no stock CLIP tower: {type(block).__name__}.")
            self.blocks[index] = TransformerBlock(block)
        unknown = names - set(self.state_dict())
        if unknown or visual.pool_type != "tok":
            raise ValueError(f"This is no stock CLIP tower: {min(unknown, default=visual.pool_type + ' pooling')}.")

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks. Each can be replaced by a module that takes tokens (B, L, W) and returns such."""
        return self.transformer.resblocks

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the images that the position embeddings are for."""
        rows, columns = trained_grid(self.positional_embedding)
        return rows * self.patch_size[0], columns * self.patch_size[1]

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings of whole images (B, D), not normalised, of normalised pixels (B, 3, H, W)."""
        return self.pool(self.embed(*self.patchify(pixels)))

    def patchify(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Patch tokens (B, h * w, W) in rows, without positions, and their grid (h, w), of pixels (B, 3, H, W).

        Pixels beyond the last whole patch, on the right and below, are not read.
        """
        patches = self.conv1(pixels)
        return patches.flatten(2).mT, (patches.shape[2], patches.shape[3])

    def class_token(self) -> Tensor:
        """The class token (W,) before its position is added."""
        return self.class_embedding

    def embed(self, patches: Tensor, grid: Grid) -> Tensor:
        """Tokens before the first block, (B, 1 + h * w, W), the class token first, of patch tokens (B, h * w, W)."""
        tokens = torch.cat([self.class_token().expand(len(patches), 1, -1), patches], 1)
        return self.ln_pre(tokens + resize_positions(self.positional_embedding, grid, self.position_rule))

    def run_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, *, queries: int | None = None
    ) -> Tensor:
        """Tokens (B, Q, W) after the blocks `start` to `stop` - 1, of tokens (B, L, W) before them.

        Args:
            tokens: of any number and meaning.
            start: the first block to run.
            stop: the block to stop before, negative from the end; None runs all.
            queries: return only the first Q tokens. Optimised blocks save the work for the others in the last block
                that runs. None returns all.
        """
        blocks = list(self.blocks)[start:stop]
        for block in blocks[:-1]:
            tokens = block(tokens)
        for block in blocks[-1:]:
            tokens = block(tokens) if queries is None else block(tokens, queries=queries)
        return tokens[:, :queries]

    def pool(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Embeddings (B, D), read at the class token, of tokens (B, L, W) before the block `start`."""
        return self.project(self.run_blocks(tokens, start, queries=1))[:, 0]

    def project(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, L, D) in the space of the texts, not normalised, of tokens (B, L, W) after the last block."""
        return self.ln_post(tokens) @ self.proj
