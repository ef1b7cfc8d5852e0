"""Weights between a model as it began and as training left it (WiSE-FT, Wortsman et al. 2022).

The decoder begins as a good reader of what the mini model says. Training teaches it outlines and small things, but on a
thousand photos it also forgets: VOC loses what streets and rooms gain. Between the two both are kept.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolate_weights(begun: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Each tensor of `begun` moved the share, 0 to 1, of its way to that of `trained`."""
    return {name: torch.lerp(value, trained[name].to(value), share) for name, value in begun.items()}
