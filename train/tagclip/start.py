"""The CLIP and the decoder that training starts from."""

from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from ovseg_demo import checkpoints
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip import released
from ovseg_demo.methods.tagclip.decoder import Decoder, Sizes
from ovseg_demo.methods.tagclip.encoder import PromptedTower, regridded
from ovseg_demo.methods.tagclip.reader import build
from ovseg_demo.vlm import by_name
from ovseg_demo.vlm.open_clip import filled

SIDE = 512
"""Pixels of the square that the image tower is made for."""

_ARCHITECTURE, _PATCH = "ViT-B-16-quickgelu", 16
_POSITIONS = "visual.positional_embedding"


def load(name: str, prompts: int, seed: int) -> open_clip.CLIP:
    """A plain CLIP ViT-B/16 in float32, its positions enlarged, with a PromptedTower whose prompts are fresh.

    Args:
        name: an id of the catalogue, or the path of a file.
        prompts: how many in every layer.
        seed: of the prompts.

    Raises CheckpointError when the weights are missing, damaged, or of another architecture.
    """
    state = by_name.clip_state(name)
    if by_name.architecture(state, name) != _ARCHITECTURE or _POSITIONS not in state:
        raise CheckpointError(f"{name} is no CLIP ViT-B/16, which TagCLIP begins with.")
    config = open_clip.get_model_config(_ARCHITECTURE)
    config["vision_cfg"]["image_size"] = SIDE
    with torch.device("meta"):  # no time for random numbers that are overwritten
        clip = open_clip.CLIP(**config)
    clip = filled(clip, state | {_POSITIONS: regridded(state[_POSITIONS], (SIDE // _PATCH,) * 2)}, name)
    return _prompted(clip, prompts, seed)


def tiny(prompts: int, seed: int) -> open_clip.CLIP:
    """A CLIP of random weights, which learns something in seconds, with a PromptedTower."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(
        embed_dim=64,
        vision_cfg=CLIPVisionCfg(layers=2, width=64, patch_size=_PATCH, image_size=64),
        text_cfg=CLIPTextCfg(width=64, heads=1, layers=2),
        quick_gelu=True,
    )
    return _prompted(clip.eval(), prompts, seed)


def go_on(path: Path, sizes: Sizes) -> tuple[open_clip.CLIP, Decoder]:
    """The models of a file that training has left; a trusty token is left out where `sizes` has none.

    Raises CheckpointError when the file is missing, damaged, or does not fit.
    """
    parts = released.split(checkpoints.read(path), path.name)
    if not sizes.trusty:
        parts.decoder.pop("trusty", None)
    decoder = Decoder(sizes)
    checkpoints.load_strict(decoder, parts.decoder, path.name)
    return build(parts.clip, path.name), decoder


def _prompted(clip: open_clip.CLIP, prompts: int, seed: int) -> open_clip.CLIP:
    torch.manual_seed(seed)
    clip.visual = PromptedTower(clip.visual, prompts)
    clip.visual.start_prompts()
    return clip
