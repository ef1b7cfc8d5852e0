"""A whole SegCLIP as a CLIP of open_clip with a `GroupingTower`."""

from collections.abc import Mapping

import open_clip
import torch
from torch import Tensor

from ovseg_demo.methods.segclip.image_tower import GroupingTower
from ovseg_demo.models.clip.weights import build_empty_clip, load_clip_weights, vision_transformer

ARCHITECTURE = "ViT-B-16-quickgelu"
"""open_clip's name of the CLIP that the released model was trained from."""


def build_empty_segclip(architecture: str = ARCHITECTURE) -> tuple[open_clip.CLIP, GroupingTower]:
    """A SegCLIP on the meta device, and its image tower.

    Args:
        architecture: open_clip model name of a CLIP with twelve blocks.
    """
    clip = build_empty_clip(architecture)
    with torch.device("meta"):
        tower = GroupingTower(vision_transformer(clip))
    clip.register_module("visual", tower)
    return clip, tower


def build_segclip(
    state: Mapping[str, Tensor], source: str, architecture: str = ARCHITECTURE
) -> tuple[open_clip.CLIP, GroupingTower]:
    """A SegCLIP, float32, in evaluation mode, and its image tower.

    Args:
        state: tensors under open_clip's names, as `split_checkpoint` gives them.
        source: where the tensors are from, for the message.
        architecture: open_clip model name.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    clip, tower = build_empty_segclip(architecture)
    return load_clip_weights(clip, state, source), tower
