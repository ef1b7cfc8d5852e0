"""The CLIP that training begins with, and the MROVSeg on its image tower with fresh weights."""

from typing import Any

import open_clip
import torch

from ovseg_demo.methods.mrovseg.checkpoint import build_mrovseg
from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.settings import MROVSegSettings
from ovseg_demo.models import factory
from ovseg_demo.models.clip.weights import vision_transformer

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 12, "width": 64, "patch_size": 16},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2},
}
"""open_clip's configuration of the tiny CLIP of smoke runs."""


def load_initial_model(settings: MROVSegSettings, name: str, seed: int) -> tuple[open_clip.CLIP, MROVSeg]:
    """A CLIP in float32, and the MROVSeg on its image tower.

    Args:
        settings: what the model is built by; they name the architecture of the CLIP.
        name: the CLIP: an id of the catalogue, or the path of a file.
        seed: seed of the fresh weights.

    Raises:
        CheckpointError: when the weights are missing, damaged, or of another architecture.
    """
    torch.manual_seed(seed)
    return build_mrovseg(factory.load_clip_state_dict(name), settings, name)


def tiny_model(settings: MROVSegSettings, seed: int) -> tuple[open_clip.CLIP, MROVSeg]:
    """A tiny CLIP and the MROVSeg on its image tower, all of random weights, drawn with `seed`, for smoke runs."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(**TINY_CONFIG).eval()
    model = MROVSeg(vision_transformer(clip), settings)
    clip.register_module("visual", model.clip_visual)
    return clip, model
