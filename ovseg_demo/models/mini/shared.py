"""The bundled mini model, loaded once for all methods that use it; importing this module loads nothing."""

from typing import TYPE_CHECKING

from ovseg_demo.runtime.shared_models import SharedModels

if TYPE_CHECKING:
    from ovseg_demo.models.mini.model import MiniModel

MINI_CHECKPOINTS = ("mini-image", "mini-text", "mini-anchors", "mini-heads")
"""Catalogue ids of the weights of the mini model."""


def shared_mini_model(models: SharedModels) -> "MiniModel":
    """The mini model with the bundled heads.

    Args:
        models: holds the loaded models.

    Raises CheckpointError when weights are missing or damaged.
    """
    from ovseg_demo.models.mini.model import MiniModel

    return models.get("mini model", "mini-heads", lambda: MiniModel(device=models.device))
