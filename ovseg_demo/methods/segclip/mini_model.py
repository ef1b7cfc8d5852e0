"""The semantic group module of SegCLIP on the maps of the mini model's frozen image tower."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.segclip.group_module import REGIONS, Grouping, SemanticGroupModule
from ovseg_demo.methods.segclip.image_tower import RegionEmbeddings
from ovseg_demo.models.mini.anchors import ANCHORS
from ovseg_demo.models.mini.heads import doubled, lateral
from ovseg_demo.models.mini.towers import ImageTower, TextTower

WIDTH = 192
"""Channels of patches and regions."""

_NEARLY_ONE_PATCH = 0.5  # straight-through assignments are 0 or 1 up to rounding

INITIAL_TEMPERATURE = 0.07
"""Divides cosines before the first training step, as in CLIP."""


class MiniGroupingTower(nn.Module):
    """Gathers patches at stride 16 to regions, and projects the regions to the text space.

    The image tower's maps take the place of the blocks of CLIP before the semantic group module; there are no blocks
    after it. The embedding of an image is the mean of those of its regions. In SegCLIP it is the greatest value of each
    channel over the regions; the mean teaches every region to name what is in it, which a few thousand photos need.

    Args:
        anchored: whether an embedding is a learned residual on what the anchors say of the region or image, instead of
            a learned projection alone.
        width: W, channels of patches and regions.
        regions: R, the number of centres.
        texts: D, dimensions of the text space.
        anchors: A, the number of anchors.

    Attributes:
        anchor_projection: (A, D), maps weights of the anchors to the vector whose product with a text embedding is the
            anchors' linear regression at that text.
        mean: the mean embedding of training photos, (D,), which is subtracted from all embeddings. Otherwise words that
            suit every photo would win.
        logit_scale: the logarithm of the factor of cosines before a softmax over texts.
    """

    anchor_projection: Tensor
    mean: Tensor

    def __init__(
        self,
        anchored: bool = True,
        width: int = WIDTH,
        regions: int = REGIONS,
        texts: int = TextTower.WIDTH,
        anchors: int = ANCHORS,
    ) -> None:
        super().__init__()
        self.register_buffer("anchor_projection", torch.zeros(anchors, texts))
        self.register_buffer("mean", torch.zeros(texts))
        *_, coarse, last = ImageTower.CHANNELS
        self._anchored, self.width = anchored, width
        self.from_coarse, self.from_last = (lateral(channels, width) for channels in (coarse, last))
        self.group = SemanticGroupModule(width, regions)
        self.norm, self.projection = nn.LayerNorm(width), nn.Linear(width, texts, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(1 / INITIAL_TEMPERATURE).log())
        nn.init.normal_(self.group.centres)  # far enough apart that regions differ from the first step on
        if anchored:
            nn.init.zeros_(self.projection.weight)

    def forward(self, coarse: Tensor, last: Tensor, weights: Tensor) -> RegionEmbeddings:
        """The regions of images whose sides are multiples of 32 pixels; embeddings are unit vectors less the mean.

        Args:
            coarse: maps of the image tower at stride 16, (B, 120, 2h, 2w).
            last: maps of the image tower at stride 32, (B, 1280, h, w).
            weights: of the anchors at stride 32, (B, A, h, w).
        """
        anchors = torch.einsum("bahw,ad->bdhw", weights, self.anchor_projection)
        regions, images, grouping = self.gather(self.patches(coarse, last), anchor_patches(anchors))
        return RegionEmbeddings(regions - self.mean, images - self.mean, grouping, (coarse.shape[2], coarse.shape[3]))

    def patches(self, coarse: Tensor, last: Tensor) -> Tensor:
        """The patches (B, 4hw, W) in rows, of maps as of `forward`."""
        return (self.from_coarse(coarse) + doubled(self.from_last(last))).flatten(2).mT

    def gather(self, patches: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Grouping]:
        """Unit vectors of regions (B, R, D) and images (B, D), and the grouping, of all or some patches of each image.

        Args:
            patches: (B, L, W).
            anchors: the unit vector that the anchors say of each patch, (B, L, D).
        """
        grouping = self.group(patches)
        occupied = grouping.hard.sum(2, keepdim=True).detach() > _NEARLY_ONE_PATCH
        regions = self.projection(self.norm(grouping.regions))
        if self._anchored:
            regions = regions + F.normalize(grouping.hard @ anchors, dim=-1)
        regions = F.normalize(regions, dim=-1)
        return regions, F.normalize((regions * occupied).sum(1), dim=-1), grouping


def anchor_patches(anchors: Tensor) -> Tensor:
    """Unit vectors (B, 4hw, D) of patches at stride 16, in rows, of the anchors' vectors (B, D, h, w) at stride 32."""
    return F.normalize(doubled(F.normalize(anchors, dim=1)), dim=1).flatten(2).mT
