"""An SED small enough for tests, under the published names, with weights that follow from those names alone."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from timm.models import register_model
from torch import Tensor

from ovseg_demo.methods.sed.decoder import Sizes

FIXTURES = Path(__file__).parent.parent / "fixtures"

ARCHITECTURE = "tiny_clip_convnext"
SIZES = Sizes(skips=(24, 16, 8), widths=(48, 32, 16, 16))
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


def fixture(name: str) -> dict:
    return json.loads((FIXTURES / name).read_text())


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Evenly spread numbers of mean 0 and variance 1 that depend on the name alone.

    They are made of the upper 23 bits of what numpy's PCG64 gives, seeded with the name's CRC-32: numpy promises these
    bits for ever, which it does not for its distributions.
    """
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape)) >> np.uint64(41)
    even = (bits.astype(np.float32) + np.float32(0.5)) / np.float32(2**23) - np.float32(0.5)
    return torch.from_numpy(even.reshape(shape)) * 12**0.5


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers of a useful size for each tensor of a model."""
    return {name: _weight(name, tuple(shape)) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    numbers = drawn(name, shape)
    if len(shape) < 2:
        return 0.3 * numbers + name.endswith(("weight", "gamma"))
    return numbers / math.prod(shape[1:]) ** 0.5
