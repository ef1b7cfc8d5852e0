"""The CLIP that training starts from."""

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from ovseg_demo.models import factory
from ovseg_demo.models.clip import convnext


def load_initial_clip(architecture: str, name: str) -> open_clip.CLIP:
    """A CLIP in float32.

    Args:
        architecture: open_clip's name of the CLIP.
        name: an id of the catalogue, or the path of a file.

    Raises:
        CheckpointError: when the weights are missing, damaged, or of another architecture.
    """
    return convnext.build_convnext_clip(architecture, factory.load_clip_state_dict(name), name)


def tiny_clip(seed: int) -> open_clip.CLIP:
    """A tiny CLIP of random weights, drawn with `seed`, for smoke runs."""
    torch.manual_seed(seed)
    return open_clip.CLIP(
        embed_dim=32,
        vision_cfg=CLIPVisionCfg(timm_model_name="test_convnext", timm_pool="", timm_proj="linear", image_size=64),
        text_cfg=CLIPTextCfg(width=32, heads=2, layers=2),
    )
