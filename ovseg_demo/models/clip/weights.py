"""From a CLIP file of any usual origin to an open_clip model with its weights."""

from collections.abc import Mapping

import open_clip
import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.clip.mask_prompts import DEPTH, MaskPromptedTower
from ovseg_demo.weights import loading

MASK_PROMPTS = "visual.mask_embedding"
"""The tensor that weights with mask prompts have beside those of a stock CLIP."""

_IN_OVSEG = "clip_adapter.clip_model."

_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def build_clip(architecture: str, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with the weights of `state`, float32, in evaluation mode; its image tower is a `MaskPromptedTower`.

    Args:
        architecture: open_clip model name.
        state: tensors of any precision under OpenAI's names, with PROMPTS where the weights have mask prompts.
        source: where they are from, for the message.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    with torch.device("meta"):  # no time for random numbers that are overwritten
        clip = open_clip.CLIP(**open_clip.get_model_config(architecture))
        prompts = torch.empty(_prompts_shape(state[MASK_PROMPTS], clip.visual)) if MASK_PROMPTS in state else None
        clip.visual = MaskPromptedTower(clip.visual, prompts)
    return load_clip_weights(clip, state, source)


def load_clip_weights(clip: open_clip.CLIP, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP that was made on the meta device, with the weights of `state`, in evaluation mode.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    clip.to_empty(device="cpu")
    clip.attn_mask = torch.full((clip.context_length,) * 2, -torch.inf).triu(1)  # no file has it
    loading.load_strict(clip, state, source)
    return clip.eval()


def clip_state_dict(published: Mapping) -> dict[str, Tensor]:
    """The tensors of a CLIP file under OpenAI's names, float32.

    Accepts OpenAI's and open_clip's files (which share their names), training checkpoints with the weights under
    "state_dict", a leading "module." of data-parallel training, and OVSeg's whole models, whose CLIP is taken out.
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


def _prompts_shape(given: Tensor, visual: torch.nn.Module) -> tuple[int, int, int]:
    """The shape that prompts must have: the depth is theirs to choose, and whether one token serves all patches."""
    tokens, width = visual.positional_embedding.shape
    depth, places = given.shape[:2] if given.ndim == 3 else (DEPTH, tokens - 1)
    return depth, 1 if places == 1 else tokens - 1, width
