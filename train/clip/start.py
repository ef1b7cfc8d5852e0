"""The CLIP that adaptation starts from."""

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from ovseg_demo.vlm import by_name
from ovseg_demo.vlm.mask_prompts import MaskPromptedTower
from ovseg_demo.vlm.open_clip import build


def load(name: str) -> open_clip.CLIP:
    """A CLIP in float32 with a MaskPromptedTower, from a catalogue id or a file. Raises CheckpointError."""
    state = by_name.clip_state(name)
    return build(by_name.architecture(state, name), state, name)


def tiny(seed: int) -> open_clip.CLIP:
    """A CLIP of random weights, which learns something in seconds, with a MaskPromptedTower."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(
        embed_dim=32,
        vision_cfg=CLIPVisionCfg(layers=4, width=64, head_width=16, patch_size=16, image_size=64),
        text_cfg=CLIPTextCfg(width=32, heads=2, layers=2),
        quick_gelu=True,
    )
    clip.visual = MaskPromptedTower(clip.visual)
    return clip.eval()
