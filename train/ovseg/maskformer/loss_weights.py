"""What the parts of MaskFormer's loss count, in the loss and in the matching alike (Cheng et al. 2021, section 4.1)."""

CLASS_WEIGHT = 1.0
MASK_WEIGHT = 20.0
DICE_WEIGHT = 1.0

VOID_WEIGHT = 0.1
"""Of queries that have no segment, in the classes' cross entropy."""

ALPHA, GAMMA = 0.25, 2
"""The focal loss's balance and focus (Lin et al. 2017, section 4.1)."""
