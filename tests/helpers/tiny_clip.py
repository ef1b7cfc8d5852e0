"""A CLIP of a few layers under a name of its own, with weights that follow from their names alone."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import open_clip
import torch

ARCHITECTURE = "tiny-clip-quickgelu"
WIDTH, PATCHES, EMBEDDING, DEPTH = 128, 16, 16, 3

_CONFIG = {
    "embed_dim": EMBEDDING,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 4, "width": WIDTH, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def register(folder: Path) -> None:
    """Let open_clip know the architecture."""
    path = folder / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)


def stock(quick_gelu: bool) -> open_clip.CLIP:
    """open_clip's own model with the weights."""
    model = open_clip.CLIP(**{**_CONFIG, "quick_gelu": quick_gelu})
    model.load_state_dict(weights(0))
    return model.eval()


def weights(prompts: int = PATCHES) -> dict[str, torch.Tensor]:
    """Seeded weights; with mask prompts for so many patches, 1 being one for all of them, or 0 for none."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in open_clip.CLIP(**_CONFIG).state_dict().items()}
    if prompts:
        shapes["visual.mask_embedding"] = (DEPTH, prompts, WIDTH)
    return seeded(shapes)


def seeded(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: _random(name, tuple(shape)) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) < 2:
        return 0.1 * values + (".ln_" in f".{name}" and name.endswith("weight"))
    return values * (1.0 if "mask_embedding" in name else shape[-1] ** -0.5)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def masks() -> np.ndarray:
    """Five shapes, bool (5, 90, 120): a stripe, a triangle, two spots, a corner, everything."""
    rows, columns = np.ogrid[:90, :120]
    stripe = abs(rows / 90 - columns / 120) < 0.08
    spots = (rows < 20) & (columns < 25) | (rows > 70) & (columns > 100)
    return np.stack([stripe, rows + columns < 60, spots, (rows < 3) & (columns < 4), rows + columns >= 0])
