"""The model with TagCLIP's losses, with two changes (docs/training.md has the measurements).

Pixels of unseen classes are ignored in the losses of the masks of seen classes. In the published code they are
negatives, and with as few training classes as here the model then finds no unseen class. And pixels of unseen classes
have a larger weight in the loss of the trusty map, so that the map exceeds one half there: below one half it favours
seen classes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from eval.datasets.base import IGNORE
from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel
from ovseg_demo.methods.tagclip.scores import enlarge
from train.common.sampling import Batch
from train.tagclip.losses import UNSEEN, LossTerms, tagclip_losses

_GAMMA = 2.0
_TERMS = LossTerms(unlabelled=False)


@dataclass(frozen=True)
class TrustyLoss:
    """The loss of the trusty map.

    Attributes:
        alpha: balance of the focal loss (Lin et al. 2017): the weight of pixels with target 1; pixels with target 0
            have the weight 1 - alpha.
        background: whether the target is 1 for background too, as in the paper's equation 9, pixels without a label
            being ignored. Otherwise, as in the published code, the target is 1 for unseen classes alone.
    """

    alpha: float = 0.75
    background: bool = False


class TagCLIPMiniTraining(nn.Module):
    """The model with its losses on the words of the seen classes.

    Args:
        model: the adapter and the decoder.
        texts: text embeddings of the C seen classes, unit vectors (C, D).
        trusty: the loss of the trusty map.
    """

    def __init__(self, model: MiniTagCLIPModel, texts: Tensor, trusty: TrustyLoss) -> None:
        super().__init__()
        self.model, self._trusty = model, trusty
        self.register_buffer("texts", texts, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `WindowBatches`."""
        labels = batch["labels"]
        encoded = self.model.adapter(batch["anchors"], batch["coarse"], batch["fine"])
        logits = self.model.decoder(encoded, self.texts)
        unseen = labels == UNSEEN
        seen_labels = labels.masked_fill(unseen, IGNORE)
        losses = tagclip_losses(replace(logits, trusty=None), seen_labels, unseen, _TERMS)
        if logits.trusty is not None:
            losses["trusty"] = _TERMS.trusty * self._trusty_loss(logits.trusty, labels)
        return losses

    def _trusty_loss(self, trusty: Tensor, labels: Tensor) -> Tensor:
        """The mean focal loss of the trusty logits (B, h, w) for labels, int64 (B, H, W)."""
        target, counted = labels == UNSEEN, torch.ones_like(labels)
        if self._trusty.background:
            target, counted = labels < 0, (labels != IGNORE).long()
        fine = enlarge(trusty, labels.shape[1:])
        focal = sigmoid_focal_loss(fine, target.to(fine), self._trusty.alpha, _GAMMA)
        return (focal * counted).sum() / counted.sum().clamp(min=1)
