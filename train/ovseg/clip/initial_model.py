"""The CLIP that adaptation starts from."""

from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from ovseg_demo.models import factory
from ovseg_demo.models.clip.mask_prompts import MaskPromptedTower
from ovseg_demo.models.clip.weights import build_clip


def load_initial_clip(name: str) -> open_clip.CLIP:
    """A CLIP in float32 with a MaskPromptedTower.

    Args:
        name: an id of the catalogue, or the path of a file.

    Raises:
        CheckpointError: when the weights are missing, damaged, or of an unknown architecture.
    """
    state = factory.load_clip_state_dict(name)
    return build_clip(factory.clip_architecture(state, name), state, name)


def tiny_clip(seed: int) -> open_clip.CLIP:
    """A tiny CLIP with a MaskPromptedTower and random weights, drawn with `seed`, for smoke runs."""
    torch.manual_seed(seed)
    clip: Any = open_clip.CLIP(
        embed_dim=32,
        vision_cfg=CLIPVisionCfg(layers=4, width=64, head_width=16, patch_size=16, image_size=64),
        text_cfg=CLIPTextCfg(width=32, heads=2, layers=2),
        quick_gelu=True,
    )
    clip.visual = MaskPromptedTower(clip.visual)
    return clip.eval()
