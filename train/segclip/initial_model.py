"""The SegCLIP that training starts from: a plain CLIP with a new semantic group module, and a new training branch."""

from typing import Any

import open_clip
import torch

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.segclip.group_module import SemanticGroupModule
from ovseg_demo.methods.segclip.image_tower import GroupingTower
from ovseg_demo.methods.segclip.model import ARCHITECTURE, build_segclip
from ovseg_demo.methods.segclip.reconstruction import ReconstructionBranch, reconstruction_branch
from ovseg_demo.models import factory
from ovseg_demo.models.clip.weights import vision_transformer

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 12, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
"""open_clip's configuration of the tiny CLIP of smoke runs."""

_CLASS_TOKEN = "visual.class_embedding"


def load_initial_model(name: str, seed: int) -> tuple[open_clip.CLIP, ReconstructionBranch]:
    """A CLIP ViT-B/16 in float32 with a GroupingTower, whose semantic group module is new, and a new branch for it.

    Args:
        name: of the plain CLIP, an id of the catalogue, or the path of a file.
        seed: seed of the new weights.

    Raises:
        CheckpointError: when the weights are missing, damaged, or of another architecture.
    """
    state = factory.load_clip_state_dict(name)
    if factory.clip_architecture(state, name) != ARCHITECTURE:
        raise CheckpointError(f"{name} is no CLIP ViT-B/16, which SegCLIP begins with.")
    torch.manual_seed(seed)
    group = SemanticGroupModule(state[_CLASS_TOKEN].numel()).state_dict()
    state |= {f"visual.group.{part}": value for part, value in group.items()}
    clip, tower = build_segclip(state, name, ARCHITECTURE)
    return clip, reconstruction_branch(tower)


def tiny_model(seed: int) -> tuple[open_clip.CLIP, ReconstructionBranch]:
    """A tiny CLIP with a GroupingTower and its branch, with random weights, drawn with `seed`, for smoke runs."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(**TINY_CONFIG)
    tower = GroupingTower(vision_transformer(clip))
    clip.register_module("visual", tower)
    return clip.eval(), reconstruction_branch(tower)
