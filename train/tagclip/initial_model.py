"""The CLIP and the decoder that training starts from."""

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip import checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.image_encoder import build_prompted_clip
from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower
from ovseg_demo.models import factory
from ovseg_demo.models.clip.positions import resize_positions
from ovseg_demo.models.clip.weights import load_clip_weights
from ovseg_demo.weights import loading, reading

SIDE = 512
"""Pixels of the square that the image tower is made for."""

_ARCHITECTURE, _PATCH = "ViT-B-16-quickgelu", 16
_POSITIONS = "visual.positional_embedding"


def load_initial_clip(name: str, prompts: int, seed: int) -> open_clip.CLIP:
    """A plain CLIP ViT-B/16 in float32, its positions enlarged, with a PromptedTower whose prompts are fresh.

    Args:
        name: an id of the catalogue, or the path of a file.
        prompts: number of prompts in every layer.
        seed: seed of the prompts.

    Raises:
        CheckpointError: when the weights are missing, damaged, or of another architecture.
    """
    state = factory.load_clip_state_dict(name)
    if factory.clip_architecture(state, name) != _ARCHITECTURE or _POSITIONS not in state:
        raise CheckpointError(f"{name} is no CLIP ViT-B/16, which TagCLIP begins with.")
    config: Any = open_clip.get_model_config(_ARCHITECTURE)
    config["vision_cfg"]["image_size"] = SIDE
    with torch.device("meta"):  # no time for random numbers that are overwritten
        clip = open_clip.CLIP(**config)
    positions = resize_positions(state[_POSITIONS], (SIDE // _PATCH, SIDE // _PATCH), "bilinear")
    clip = load_clip_weights(clip, state | {_POSITIONS: positions}, name)
    return _prompted(clip, prompts, seed)


def tiny_clip(prompts: int, seed: int) -> open_clip.CLIP:
    """A tiny CLIP with a PromptedTower and random weights, for smoke runs.

    Args:
        prompts: number of prompts in every layer.
        seed: seed of all weights.
    """
    torch.manual_seed(seed)
    clip = open_clip.CLIP(
        embed_dim=64,
        vision_cfg=CLIPVisionCfg(layers=2, width=64, patch_size=_PATCH, image_size=64),
        text_cfg=CLIPTextCfg(width=64, heads=1, layers=2),
        quick_gelu=True,
    )
    return _prompted(clip.eval(), prompts, seed)


def load_trained(path: Path, sizes: DecoderSizes) -> tuple[open_clip.CLIP, Decoder]:
    """The CLIP and the decoder of a file that training has written.

    Args:
        path: path of the file.
        sizes: sizes of the decoder; a trusty token of the file is left out where `sizes` has none.

    Raises:
        CheckpointError: when the file is missing, damaged, or does not fit.
    """
    parts = checkpoint.split_checkpoint(reading.read_weights(path), path.name)
    if not sizes.trusty:
        parts.decoder.pop("trusty", None)
    decoder = Decoder(sizes)
    loading.load_strict(decoder, parts.decoder, path.name)
    return build_prompted_clip(parts.clip, path.name), decoder


def _prompted(clip: Any, prompts: int, seed: int) -> open_clip.CLIP:
    torch.manual_seed(seed)
    clip.visual = PromptedTower(clip.visual, prompts)
    clip.visual.initialise_prompts()
    return clip
