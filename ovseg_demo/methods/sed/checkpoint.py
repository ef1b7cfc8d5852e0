"""SED's released files (Xie et al., CVPR 2024): one table of tensors for each of two sizes, a CLIP and a decoder."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights.loading import tensor_table

_PREFIX = "sem_seg_head.predictor."
_CLIP, _DECODER = "clip_model.", "transformer."
_RENAMED = (
    (".conv1.", ".embed."),
    *((f".decoder_guidance_projection.{i}.0.", f".skips.{i}.") for i in range(3)),
    *((f".decoder_corr_guidance_projection.{i}.0.", f".cost_skips.{i}.") for i in range(3)),
    *((f".head{i}.", f".heads.{i}.") for i in range(3)),
    (".head.", ".heads.3."),
    *((f".decoder{i + 1}.", f".stages.{i}.") for i in range(3)),
    (".cnext.gamma", ".spatial.layer_scale"),
    (".cnext.dwconv.", ".spatial.depthwise."),
    (".cnext.norm.", ".spatial.norm."),
    (".cnext.pwconv1.", ".spatial.fc1."),
    (".cnext.pwconv2.", ".spatial.fc2."),
    (".attention.attention.q.", ".classes.query."),
    (".attention.attention.k.", ".classes.key."),
    (".attention.attention.v.", ".classes.value."),
    (".attention.MLP.0.", ".classes.fc1."),
    (".attention.MLP.2.", ".classes.fc2."),
    (".attention.norm1.", ".classes.norm."),
    (".attention.norm2.", ".classes.mlp_norm."),
    (".conv.double_conv.", ".mix."),
)
"""Parts of names in the file and in our `Decoder`, when names begin with a full stop: each stands for the other."""


@dataclass(frozen=True)
class ReleasedModel:
    """The parts of a released file.

    Attributes:
        clip: open_clip's names, the whole CLIP ConvNeXt with its text tower.
        decoder: the names of `Decoder`.
    """

    clip: dict[str, Tensor]
    decoder: dict[str, Tensor]


def split_checkpoint(published: Mapping, source: str = "This file") -> ReleasedModel:
    """Take a released file apart; its tensors stand in it, or under "model".

    Every tensor goes into one of the parts; what they lack or should not have is told by whoever loads them. Raises
    CheckpointError for a file that is no SED.
    """
    state = tensor_table(published, source)
    strange = [name for name in state if not name.startswith((_PREFIX + _CLIP, _PREFIX + _DECODER))]
    if strange:
        raise CheckpointError(f"{source} is no SED model: it has {strange[0]}.")
    clip, decoder = {}, {}
    for name, tensor in state.items():
        inner = name.removeprefix(_PREFIX)
        if inner.startswith(_CLIP):
            clip[inner.removeprefix(_CLIP)] = tensor
        else:
            decoder[_ours(inner.removeprefix(_DECODER))] = tensor
    return ReleasedModel(clip, decoder)


def join_checkpoint(parts: ReleasedModel) -> dict[str, Tensor]:
    """What `split_checkpoint` takes apart: the tensors of a file as released."""
    clip = {_CLIP + name: tensor for name, tensor in parts.clip.items()}
    decoder = {_DECODER + _theirs(name): tensor for name, tensor in parts.decoder.items()}
    return {_PREFIX + name: tensor for name, tensor in (clip | decoder).items()}


def _ours(name: str) -> str:
    name = f".{name}"
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name.removeprefix(".")


def _theirs(name: str) -> str:
    name = f".{name}"
    for theirs, ours in _RENAMED:
        name = name.replace(ours, theirs)
    return name.removeprefix(".")
