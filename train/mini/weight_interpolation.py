"""Interpolation between the weights before and after training (WiSE-FT, Wortsman et al. 2022).

SED (mini) is initialised to reproduce the mini model's own label map. Training improves outlines and small objects,
but on a thousand photos the decoder also forgets: it gets worse on VOC and better on streets and rooms. The
interpolated weights keep both.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolate_weights(
    initial: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """The weights (1 - share) * initial + share * trained, tensor by tensor.

    Args:
        initial: state dict before training.
        trained: state dict after training, with the same names and shapes.
        share: weight of the trained state, 0 to 1.
    """
    return {name: torch.lerp(value, trained[name].to(value), share) for name, value in initial.items()}
