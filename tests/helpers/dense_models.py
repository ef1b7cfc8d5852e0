"""A CLIP small enough for tests of dense CLIP, with weights that follow from their names alone."""

import json
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from tests.helpers.oracle import weights

ARCHITECTURE = "tiny-dense-quickgelu"
PATCH, SIDE, EMBEDDING = 8, 32, 16
"""In place of the 16 and 224 pixels of ViT-B/16."""

_CONFIG = {
    "embed_dim": EMBEDDING,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "layers": 3, "width": 128, "patch_size": PATCH},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def register(folder: Path) -> None:
    """Let open_clip know the architecture."""
    path = folder / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)


def state() -> dict[str, Tensor]:
    """The weights."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in open_clip.CLIP(**_CONFIG).state_dict().items()}
    return weights(shapes)
