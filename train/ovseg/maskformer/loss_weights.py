"""Weights of the parts of MaskFormer's loss, equal in the loss and in the matching (Cheng et al. 2021, section 4.1)."""

CLASS_WEIGHT = 1.0
MASK_WEIGHT = 20.0
DICE_WEIGHT = 1.0

VOID_WEIGHT = 0.1
"""Weight of queries without a segment in the cross entropy of classes."""

ALPHA, GAMMA = 0.25, 2
"""Balance and focusing parameter of the focal loss (Lin et al. 2017, section 4.1)."""
