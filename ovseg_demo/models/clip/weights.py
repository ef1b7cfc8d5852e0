"""From a CLIP file of any usual origin to an open_clip model with its weights."""

from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.clip.mask_prompts import DEPTH, MaskPromptedTower
from ovseg_demo.weights import loading

MASK_PROMPTS = "visual.mask_embedding"
"""Name of the tensor that only weights with mask prompts have."""

_IN_OVSEG = "clip_adapter.clip_model."

_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def build_clip(architecture: str, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with the weights of `state`, float32, in evaluation mode; its image tower is a `MaskPromptedTower`.

    Args:
        architecture: open_clip model name.
        state: tensors of any precision under OpenAI's names, with MASK_PROMPTS where the weights have mask prompts.
        source: where the tensors are from, for the message.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    clip = build_empty_clip(architecture)
    visual = vision_transformer(clip)
    with torch.device("meta"):
        prompts = torch.empty(_prompts_shape(state[MASK_PROMPTS], visual)) if MASK_PROMPTS in state else None
        clip.register_module("visual", MaskPromptedTower(visual, prompts))
    return load_clip_weights(clip, state, source)


def build_empty_clip(architecture: str, **vision_settings: Any) -> open_clip.CLIP:
    """A CLIP on the meta device: random initial weights would be overwritten.

    Args:
        architecture: open_clip model name.
        vision_settings: values of open_clip's vision configuration that replace its own.

    Raises ValueError for an unknown architecture.
    """
    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        raise ValueError(f"open_clip has no architecture {architecture}.")
    config["vision_cfg"] |= vision_settings
    with torch.device("meta"):
        return open_clip.CLIP(**config)


def vision_transformer(clip: open_clip.CLIP) -> VisionTransformer:
    """The stock image tower of a CLIP. Raises ValueError when it is of another type."""
    if not isinstance(clip.visual, VisionTransformer):
        raise ValueError(f"This CLIP's image tower is no VisionTransformer but a {type(clip.visual).__name__}.")
    return clip.visual


def load_clip_weights(clip: open_clip.CLIP, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """Give a CLIP its weights.

    Args:
        clip: made on the meta device; it is moved to the CPU and changed in place.
        state: tensors of any precision under the CLIP's names.
        source: where the tensors are from, for the message.

    Returns:
        The same CLIP, float32, in evaluation mode.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    clip.to_empty(device="cpu")
    clip.attn_mask = torch.full((clip.context_length,) * 2, -torch.inf).triu(1)  # a buffer that files do not have
    loading.load_strict(clip, state, source)
    return clip.eval()


def clip_state_dict(published: Mapping) -> dict[str, Tensor]:
    """The tensors of a CLIP file under OpenAI's names, float32.

    Args:
        published: the content of a file of OpenAI or open_clip (which share their names), of a training checkpoint
            with the weights under "state_dict" or "model", with or without the leading "module." of data-parallel
            training, or of a whole OVSeg model, of which only the CLIP is taken.

    Raises CheckpointError for anything else.
    """
    return {name: value.float() for name, value in clip_tensors(published).items()}


def clip_tensors(published: Mapping) -> dict[str, Tensor]:
    """As `clip_state_dict`, in the precision of the file."""
    state = None
    if isinstance(published, Mapping):
        state = published.get("state_dict", published.get("model", published))
    if not state or not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("This file holds no CLIP weights: expected a table of tensors.")
    named = {name.removeprefix("module."): value for name, value in state.items()}
    inside = {name.removeprefix(_IN_OVSEG): value for name, value in named.items() if name.startswith(_IN_OVSEG)}
    named = inside or named
    return {name: value for name, value in named.items() if name not in _ARCHIVE_EXTRAS}


def _prompts_shape(given: Tensor, visual: VisionTransformer) -> tuple[int, int, int]:
    """The shape that mask prompts must have in a tower.

    The given ones decide on the depth, and whether there is one prompt for all patches.
    """
    tokens, width = visual.positional_embedding.shape
    depth, patches = given.shape[:2] if given.ndim == 3 else (DEPTH, tokens - 1)
    return depth, 1 if patches == 1 else tokens - 1, width
