"""An SED small enough for tests, under the published names."""

import json
from pathlib import Path

import open_clip
import timm
from timm.models import register_model

from ovseg_demo.methods.sed.decoder import DecoderSizes

ARCHITECTURE = "tiny_clip_convnext"
SIZES = DecoderSizes(skips=(24, 16, 8), widths=(48, 32, 16, 16))
SIDE = 192
"""In place of the 768 pixels a side of the published models."""

_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"timm_model_name": "convnext_tiny_sed", "timm_pool": "", "timm_proj": "linear", "image_size": 320},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@register_model
def convnext_tiny_sed(pretrained: bool = False, **settings) -> timm.models.ConvNeXt:
    return timm.create_model("convnext_tiny", pretrained, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), **settings)


def register(folder: Path) -> None:
    """Let open_clip know ARCHITECTURE."""
    path = folder / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)
