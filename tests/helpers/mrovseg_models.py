"""A MROVSeg small enough for tests: an open_clip architecture of its own, and seeded weights of CLIP and the rest."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from ovseg_demo.methods.mrovseg.checkpoint import build_mrovseg
from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.settings import MROVSegSettings
from ovseg_demo.models.clip.weights import build_empty_clip
from tests.helpers.tiny_clip import seeded

ARCHITECTURE = "tiny-mrovseg-quickgelu"
PATCH, WIDTH, BLOCKS, EMBEDDING = 8, 128, 4, 16

SETTINGS = MROVSegSettings(
    ARCHITECTURE,
    fusion_layers=(0, 1, 2, 4),
    pyramid_layers=(0, 1, 2),
    split=2,
    short_side=64,
    fusion_points=(0, 1, 2, 3),
    queries=5,
    adapter_blocks=3,
    adapter_width=48,
    adapter_heads=4,
    auxiliary_blocks=(2,),
    mask_width=16,
)
"""The adapter's channels are not those of CLIP, as with ViT-L/14."""

_CONFIG = {
    "embed_dim": EMBEDDING,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": BLOCKS, "width": WIDTH, "patch_size": PATCH},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def register(folder: Path) -> None:
    """Let open_clip know the architecture."""
    path = folder / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)


@cache
def clip_state() -> dict[str, Tensor]:
    """The tensors of the CLIP. The architecture must be registered."""
    shapes: Mapping[str, Any] = {name: each.shape for name, each in build_empty_clip(ARCHITECTURE).state_dict().items()}
    return seeded(shapes)


def build(seed: int = 0, **changed: Any) -> MROVSeg:
    """A model in evaluation mode, with some settings changed. The architecture must be registered."""
    torch.manual_seed(seed)
    return build_mrovseg(clip_state(), replace(SETTINGS, **changed), "tiny")[1].eval()


def pixels(height: int = 64, width: int = 96, batch: int = 2) -> Tensor:
    """Seeded normalised pixels (batch, 3, height, width)."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
