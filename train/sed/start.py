"""The CLIP that training starts from, and what its text tower makes of words."""

from collections.abc import Sequence

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.vlm import by_name, convnext
from ovseg_demo.vlm.open_clip import encode_in_batches


def load(architecture: str, name: str) -> open_clip.CLIP:
    """A CLIP in float32.

    Args:
        architecture: open_clip's name of it.
        name: an id of the catalogue, or the path of a file.

    Raises CheckpointError when the weights are missing, damaged, or of another architecture.
    """
    return convnext.build(architecture, by_name.clip_state(name), name)


def tiny(seed: int) -> open_clip.CLIP:
    """A CLIP of random weights, which learns something in seconds."""
    torch.manual_seed(seed)
    return open_clip.CLIP(
        embed_dim=32,
        vision_cfg=CLIPVisionCfg(timm_model_name="test_convnext", timm_pool="", timm_proj="linear", image_size=64),
        text_cfg=CLIPTextCfg(width=32, heads=2, layers=2),
    )


@torch.no_grad()
def embed(clip: open_clip.CLIP, words: Sequence[str]) -> Tensor:
    """Unit vectors of words, verbatim, in each of P prompts: float32 (len(words), P, D), where the CLIP is."""
    texts = [template.format(word) for word in words for template in convnext.TEMPLATES]
    tokens = open_clip.SimpleTokenizer()(texts).to(clip.logit_scale.device)
    return F.normalize(encode_in_batches(clip, tokens), dim=-1).unflatten(0, (len(words), -1))
