"""The grouping tower with SegCLIP's three losses, on cached features."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.segclip.mini_model import MiniGroupingTower, anchor_patches
from ovseg_demo.methods.segclip.reconstruction import ReconstructionBranch, draw_kept
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from train.common.contrastive import HIGHEST_SCALE, contrastive_loss
from train.common.sampling import Batch
from train.mini.segclip.captioned_features import CaptionedFeatures
from train.segclip.losses import superpixel_loss

_VALUES = ImageTower.CHANNELS[2] + TextTower.WIDTH
_BRANCH_BLOCKS = (1, 1)
_PHOTOS_OF_MEAN, _BATCH = 1000, 50


@dataclass(frozen=True)
class Losses:
    """Which losses there are, and on how much they are computed.

    Attributes:
        reconstruction: weight of the loss of the features of hidden patches.
        superpixels: weight of the superpixel loss.
        seen: share of the patches of a photo that the contrastive and the superpixel loss see, for speed.
        reconstructed: share of the photos of a batch whose hidden patches are predicted, for speed.
    """

    reconstruction: float = 1.0
    superpixels: float = 1.0
    seen: float = 0.5
    reconstructed: float = 0.25


class SegCLIPMiniTraining(nn.Module):
    """The tower, its reconstruction branch and its losses.

    Args:
        tower: is trained.
        patches: of each photo.
        losses: which there are.
    """

    def __init__(self, tower: MiniGroupingTower, patches: int, losses: Losses) -> None:
        super().__init__()
        self.tower, self._losses = tower, losses
        if losses.reconstruction:
            self.branch = ReconstructionBranch(tower.width, patches, _VALUES, _BRANCH_BLOCKS)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `CaptionedBatches`."""
        with torch.no_grad():
            self.tower.logit_scale.clamp_(max=HIGHEST_SCALE)
        coarse, last, anchors = (batch[name].float() for name in ("coarse", "last", "anchors"))
        patches, of_anchors = self.tower.patches(coarse, last), anchor_patches(anchors)
        count, length = patches.shape[:2]
        seen = _drawn(count, length, round(length * self._losses.seen))
        _, images, grouping = self.tower.gather(_at(patches, seen), _at(of_anchors, seen))
        losses = {"contrastive": contrastive_loss(images, batch["captions"].float(), self.tower.logit_scale.exp())}
        if self._losses.superpixels:
            of_patches = batch["superpixels"].long().gather(1, seen)
            losses["superpixels"] = self._losses.superpixels * superpixel_loss(grouping.hard, of_patches)
        if self._losses.reconstruction:
            some = slice(max(1, round(count * self._losses.reconstructed)))
            targets = _targets(coarse[some], of_anchors[some])
            losses["reconstruction"] = self._losses.reconstruction * self._reconstruction(patches[some], targets)
        return losses

    def _reconstruction(self, patches: Tensor, targets: Tensor) -> Tensor:
        """The mean squared difference of predicted and true features (B, L, F) of the patches that were hidden."""
        kept = draw_kept(*patches.shape[:2], device=patches.device)
        predicted = self.branch.predict(self.tower.group(_at(patches, kept)), kept)
        hidden = torch.ones(kept.shape[0], patches.shape[1], dtype=torch.bool, device=kept.device)
        return (predicted - targets).square().mean(2)[hidden.scatter(1, kept, False)].mean()


@torch.inference_mode()
def mean_embedding(tower: MiniGroupingTower, view: CaptionedFeatures) -> Tensor:
    """The mean embedding (D,) of up to a thousand of the photos of a view, before `MiniGroupingTower.mean`.

    Args:
        tower: in evaluation mode.
        view: of all training photos.
    """
    device, step = tower.mean.device, max(1, len(view.captions) // _PHOTOS_OF_MEAN)
    batches = zip(*(maps[::step].split(_BATCH) for maps in (view.coarse, view.last, view.anchors)), strict=True)
    images = []
    for batch in batches:
        coarse, last, anchors = (maps.float().to(device) for maps in batch)
        images.append(tower.gather(tower.patches(coarse, last), anchor_patches(anchors))[1])
    return torch.cat(images).mean(0)


def _drawn(images: int, patches: int, count: int) -> Tensor:
    """Distinct places of `count` patches of each image, int64 (images, count)."""
    return torch.rand(images, patches).argsort(1)[:, :count]


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values (B, L, C) at places (B, K), as (B, K, C)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _targets(coarse: Tensor, anchors: Tensor) -> Tensor:
    """Standardised features (B, L, F) of patches: of the image tower at stride 16, and what the anchors say."""
    features = coarse.flatten(2).mT
    return torch.cat([F.layer_norm(part, part.shape[-1:]) for part in (features, anchors)], 2)
