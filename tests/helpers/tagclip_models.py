"""A TagCLIP small enough for tests, under the published names, with weights that follow from those names alone."""

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.checkpoint import ReleasedModel, join_checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower
from tests.helpers.oracle import drawn, weights

PROMPTS = 3
SIDE = 32
"""In place of the 512 pixels a side of the published models; patches are of 8 pixels."""

WIDTH = 24
"""Channels of texts, patches and decoder."""

SIZES = {
    "tagclip": DecoderSizes(WIDTH),
    "tokenless": DecoderSizes(WIDTH, trusty=False),
    "zegclip": DecoderSizes(WIDTH, learner=False, trusty=False),
}
"""TagCLIP, TagCLIP without its trusty token, and ZegCLIP."""

_CONFIG = {
    "embed_dim": WIDTH,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "patch_size": 8, "width": 128, "layers": 3},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}


def clip() -> open_clip.CLIP:
    """The CLIP with deep prompts, without numbers."""
    with torch.device("meta"):
        made = open_clip.CLIP(**_CONFIG)
        made.visual = PromptedTower(made.visual, PROMPTS)
    return made


def published(model: str) -> dict[str, Tensor]:
    """A trained file's tensors, without those that nothing reads."""
    clip_state = clip().state_dict()
    del clip_state["logit_scale"]
    sizes = SIZES[model]
    with torch.device("meta"):
        decoder = Decoder(sizes)
    state = join_checkpoint(ReleasedModel(clip_state, decoder.state_dict(), sizes))
    return weights({name: tensor.shape for name, tensor in state.items()})


def units(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that depend on the name alone, unit vectors along the second axis."""
    return F.normalize(drawn(name, shape), dim=1)
