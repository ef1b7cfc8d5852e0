"""MaskFormers small enough for tests, with weights that a rule makes, so that other code can have the same."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.proposals.maskformer.model import BACKBONES as KINDS
from ovseg_demo.proposals.maskformer.model import MaskFormer

BACKBONES = {
    "r101c": {"width": 8, "depths": (1, 2, 1, 3)},
    "swinb": {"width": 8, "depths": (2, 2, 2, 2), "heads": (1, 2, 4, 8), "window": 4},
}
HEAD = {
    "text_width": 12,
    "width": 64,
    "queries": 5,
    "layers": 2,
    "heads": 4,
    "feedforward": 48,
    "class_width": 24,
}
IMAGE = (2, 3, 96, 160)
"""Swin's maps at strides 16 and 32 are no whole number of windows, and the last has one row of them."""
SIDES = 60, 90
"""Shortest and longest side at which a photo is read."""


def small(backbone: str) -> MaskFormer:
    model = MaskFormer(KINDS[backbone](**BACKBONES[backbone]), **HEAD)
    model.load_state_dict(weights(model.state_dict()))
    return model.eval()


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers that depend on the name alone; numpy promises this generator's stream for ever."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of a useful size for each tensor of a model; indices stay as they are."""
    return {name: _weight(name, tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _weight(name: str, tensor: Tensor) -> Tensor:
    numbers = drawn(name, tuple(tensor.shape))
    if name.endswith("running_var"):
        return 1 + numbers.abs()
    if tensor.ndim == 1:
        return 0.1 * numbers + name.endswith("weight")
    if name.endswith("bias_table"):
        return numbers
    return numbers / tensor[0].numel() ** 0.5
