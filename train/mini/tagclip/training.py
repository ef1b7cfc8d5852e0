"""The model and what it is judged by: TagCLIP's losses, but for two things (docs/training.md has the measurements).

Pixels of unseen classes teach nothing about the masks of seen ones; as published they teach that those are absent, and
with as few words as here the unseen ones are then lost. And they weigh more in the trusty map's loss, so that the map
rises above one half there: below, it favours seen words.
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
    """What the trusty map learns.

    Attributes:
        alpha: of the focal loss: what pixels that are to look new count, the others counting one minus it.
        background: whether background is to look new too, as by the paper's equation 9; pixels that nobody labelled
            then count as neither. Else, as in the published code, nothing but unseen classes is.
    """

    alpha: float = 0.75
    background: bool = False


class TagCLIPMiniTraining(nn.Module):
    """The model with its losses on the words of the seen classes.

    Args:
        model: the adapter and the decoder.
        texts: unit vectors (C, D).
        trusty: what the trusty map learns.
    """

    def __init__(self, model: MiniTagCLIPModel, texts: Tensor, trusty: TrustyLoss) -> None:
        super().__init__()
        self.model, self._trusty = model, trusty
        self.register_buffer("texts", texts, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `Data`."""
        labels = batch["labels"]
        encoded = self.model.adapter(batch["anchors"], batch["coarse"], batch["fine"])
        logits = self.model.decoder(encoded, self.texts)
        unseen = labels == UNSEEN
        shown = labels.masked_fill(unseen, IGNORE)
        found = tagclip_losses(replace(logits, trusty=None), shown, unseen, _TERMS)
        if logits.trusty is not None:
            found["trusty"] = _TERMS.trusty * self._novelty(logits.trusty, labels)
        return found

    def _novelty(self, trusty: Tensor, labels: Tensor) -> Tensor:
        """The mean focal loss of the trusty map (B, h, w) where pixels show int64 (B, H, W)."""
        new, counted = labels == UNSEEN, torch.ones_like(labels)
        if self._trusty.background:
            new, counted = labels < 0, (labels != IGNORE).long()
        fine = enlarge(trusty, labels.shape[1:])
        each = sigmoid_focal_loss(fine, new.to(fine), self._trusty.alpha, _GAMMA)
        return (each * counted).sum() / counted.sum().clamp(min=1)
