"""SegCLIP's semantic group module: learned centres gather the patches of an image to regions.

Luo et al., "SegCLIP: Patch Aggregation with Learnable Centers for Open-Vocabulary Semantic Segmentation", ICML 2023,
section 2.2. The module follows the released code, by which the released weights were trained. It differs from the
paper's equations in three points: centres attend to centres and patches (equation 1 has patches alone), and between the
sum of equation 3 and its MLP stands a layer norm, after the MLP a QuickGELU.
"""

from dataclasses import dataclass

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

REGIONS = 8
"""Number of centres, and so of regions, as published."""

CROSS_LAYERS = 2
"""Number of cross-attention blocks as published."""

HEAD_WIDTH = 64
"""Channels of an attention head, and of a group of channels in the projections of keys and values."""

GUMBEL_TEMPERATURE = 0.9
"""Divides the logits of the assignment in training."""

INITIAL_STD = 0.02
"""Standard deviation of the initial centres and of the initial weights of linear layers, as published."""


@dataclass(frozen=True)
class Grouping:
    """How the L patches of each of B images gather to R regions.

    Attributes:
        regions: the tokens of the regions, float (B, R, W).
        soft: the probability that a patch belongs to a region, float (B, R, L); it sums to 1 over the regions.
        hard: 1 at the one region that a patch is assigned to, otherwise 0, float (B, R, L). In training the region is
            drawn with Gumbel noise, and the gradient is that of the probabilities (straight-through).
    """

    regions: Tensor
    soft: Tensor
    hard: Tensor


class CrossAttentionBlock(nn.Module):
    """A transformer block in which queries attend to a context, with a layer norm of its own for each of them.

    Args:
        width: W, channels of queries and context.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm, self.context_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Queries (B, R, W) after the block, of queries (B, R, W) and their context (B, S, W)."""
        attended = self.context_norm(context)
        x = queries + self.attn(self.query_norm(queries), attended, attended, need_weights=False)[0]
        return x + self.mlp(self.mlp_norm(x))


class SemanticGroupModule(nn.Module):
    """Gathers patches to regions around learned centres.

    Args:
        width: W, channels of patches and regions, a multiple of HEAD_WIDTH.
        regions: R, the number of centres.
        cross_layers: the number of cross-attention blocks.
        mixes_batch: whether, in training, a centre attends to patches of all images of the batch, as it does by
            mistake in the released training code; see `mix_batch`.
    """

    def __init__(
        self, width: int, regions: int = REGIONS, cross_layers: int = CROSS_LAYERS, *, mixes_batch: bool = False
    ) -> None:
        super().__init__()
        self.mixes_batch = mixes_batch
        self.centres = nn.Parameter(torch.empty(regions, width))
        self.cross_attention = nn.ModuleList(CrossAttentionBlock(width) for _ in range(cross_layers))
        self.centre_norm, self.patch_norm, self.key_norm = (nn.LayerNorm(width) for _ in range(3))
        self.key, self.value = (nn.Conv1d(width, width, 1, groups=width // HEAD_WIDTH, bias=False) for _ in range(2))
        self.region_mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), QuickGELU()
        )
        self.initialise()

    def initialise(self) -> None:
        """Draw the initial weights of published training."""
        nn.init.trunc_normal_(self.centres, std=INITIAL_STD)
        initialise_layers(self)

    def forward(self, patches: Tensor) -> Grouping:
        """The regions of patches (B, L, W), of any number L.

        In training mode the assignment is drawn with Gumbel noise.
        """
        centres = self.centres.expand(len(patches), -1, -1)
        for block in self.cross_attention:
            context = torch.cat([centres, patches], 1)
            centres = block(centres, mix_batch(context) if self.mixes_batch and self.training else context)
        centres = self.centre_norm(centres)
        normalised = self.patch_norm(patches).mT
        keys, values = self.key_norm(self.key(normalised).mT), self.value(normalised).mT
        with torch.autocast(patches.device.type, enabled=False):  # logits are not scaled: bfloat16 has too few digits
            soft, hard = assign(centres.float() @ keys.float().mT, self.training)
        gathered = hard @ values / hard.sum(-1, keepdim=True).clamp(min=1)  # 0 for a centre without patches
        return Grouping(self.region_mlp(centres + gathered), soft, hard)


def assign(logits: Tensor, drawn: bool) -> tuple[Tensor, Tensor]:
    """The soft and the hard assignment of patches to regions, equation 2 of the paper, each (B, R, L).

    Args:
        logits: of every pair of a region and a patch, (B, R, L).
        drawn: whether the region of a patch is drawn from the probabilities at GUMBEL_TEMPERATURE; otherwise it is the
            most probable one.
    """
    soft = sharp = logits.softmax(1)
    if drawn:
        noise = -torch.empty_like(logits).exponential_().log()  # of the standard Gumbel distribution
        sharp = ((logits + noise) / GUMBEL_TEMPERATURE).softmax(1)
    one_hot = torch.zeros_like(sharp).scatter_(1, sharp.argmax(1, keepdim=True), 1)
    return soft, one_hot + (sharp - sharp.detach())


def mix_batch(tokens: Tensor) -> Tensor:
    """The tokens (B, S, W) as the released training code gives them to attention, (B, S, W).

    The code passes keys and values with their first two axes exchanged. The attention layer of its version of torch
    reads them as one list of B * S tokens, and gives the image n those whose index in the list is n modulo B. Each
    image of a batch of 96 so attends to two tokens of every image.
    """
    batch, length, width = tokens.shape
    return tokens.reshape(length, batch, width).transpose(0, 1)


def initialise_layers(module: nn.Module) -> None:
    """Draw the initial weights of the linear layers within a module, and zero their biases, as published."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=INITIAL_STD)
            nn.init.zeros_(layer.bias)
