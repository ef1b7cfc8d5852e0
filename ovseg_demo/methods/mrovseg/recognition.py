"""Multi-grained masked attention (section 3.6): class tokens, one for each query, in CLIP's last blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.clip.image_tower import ImageTower


def recognise(
    tower: ImageTower,
    start: int,
    class_tokens: Tensor,
    keys: Sequence[Tensor],
    biases: Sequence[Tensor],
    self_key: bool = False,
) -> Tensor:
    """Class embeddings of queries, equation 8 with the norms and the MLP of CLIP's blocks.

    The class tokens attend to the patches of the global view and of the slices, each where its attention mask says so;
    the patches do not attend to the class tokens. No block computes anything of the patches but keys and values.

    Args:
        tower: CLIP's image tower.
        start: the first block, counted from 0; the blocks from there to the last run.
        class_tokens: one for each query, (B, Q, W), before the first of these blocks.
        keys: for each block the patch tokens before it, (B, N, W).
        biases: for each block what is added to the logits of attention, (B, heads, Q, N).
        self_key: whether a class token also attends to itself.

    Returns:
        Unit vectors (B, Q, D), in the space of the texts.
    """
    tokens, count = class_tokens, class_tokens.shape[1]
    for block, patches, bias in zip(list(tower.blocks)[start:], keys, biases, strict=True):
        if self_key:
            alone = torch.full((count, count), -torch.inf, device=bias.device, dtype=bias.dtype).fill_diagonal_(0)
            bias = torch.cat([alone.expand(*bias.shape[:2], -1, -1), bias], 3)
            patches = torch.cat([tokens, patches], 1)
        tokens = block(tokens, bias, context=patches)
    return F.normalize(tower.project(tokens), dim=-1)


def pool_masks(tower: ImageTower, masks: Tensor, patches: Tensor) -> Tensor:
    """Class embeddings of queries without masked attention: means of patch tokens, weighted by the masks.

    Args:
        tower: CLIP's image tower.
        masks: logits (B, Q, h, w), at any resolution.
        patches: CLIP's last patch tokens as a map, (B, H', W', W).

    Returns:
        Unit vectors (B, Q, D), in the space of the texts.
    """
    size = (patches.shape[1], patches.shape[2])
    weights = F.interpolate(masks, size, mode="bilinear", align_corners=False).sigmoid().flatten(2)
    means = weights @ patches.flatten(1, 2) / weights.sum(2, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return F.normalize(tower.project(means), dim=-1)
