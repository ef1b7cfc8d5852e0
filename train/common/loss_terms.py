"""The terms of the loss of a set of masks, equal in the loss and in the matching."""

from dataclasses import dataclass
from typing import Literal

MaskTerm = Literal["focal", "cross entropy"]
"""What is summed over the pixels of a mask beside the Dice loss: the focal loss, or plain binary cross entropy."""

ALPHA, GAMMA = 0.25, 2
"""Balance and focusing parameter of the focal loss (Lin et al. 2017, section 4.1)."""


@dataclass(frozen=True)
class PointSampling:
    """At which points masks are compared, instead of at all pixels (Cheng et al. 2022, "Mask2Former", section 3.3).

    The matching takes points that are drawn evenly, the same for all masks of an image; the loss prefers the points of
    each mask where its logit is closest to 0 (PointRend, Kirillov et al. 2020, section 3.1).

    Attributes:
        points: P, the number of points of a mask.
        oversampling: so many times P points are drawn evenly, of which the least certain are kept.
        importance: share of the P points that are the least certain ones; the others are drawn evenly.
    """

    points: int = 12544
    oversampling: float = 3.0
    importance: float = 0.75


@dataclass(frozen=True)
class LossTerms:
    """Weights and forms of the terms; the defaults are MaskFormer's (Cheng et al. 2021, section 4.1).

    Attributes:
        classes: weight of the cross entropy of classes.
        masks: weight of the mean over pixels of `mask_term`.
        dice: weight of the Dice loss.
        void: weight of queries without a segment in the cross entropy of classes.
        mask_term: the loss of a mask's pixels.
        sampling: the points at which masks are compared; None for all pixels.
    """

    classes: float = 1.0
    masks: float = 20.0
    dice: float = 1.0
    void: float = 0.1
    mask_term: MaskTerm = "focal"
    sampling: PointSampling | None = None


MASKFORMER = LossTerms()
