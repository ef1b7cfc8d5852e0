"""SED's released files (Xie et al., CVPR 2024): a state dict with a CLIP and a decoder, in two sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights.loading import tensor_table

_PREFIX = "sem_seg_head.predictor."
_CLIP, _DECODER = "clip_model.", "transformer."
_RENAMES = (
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
"""Pairs of a part of a published name and the same part of a name in `Decoder`, names beginning with a full stop."""


@dataclass(frozen=True)
class ReleasedModel:
    """The parts of a released file.

    Attributes:
        clip: state dict of the whole CLIP ConvNeXt with its text tower, under open_clip's names.
        decoder: state dict of `Decoder`.
    """

    clip: dict[str, Tensor]
    decoder: dict[str, Tensor]


def split_checkpoint(published: Mapping, source: str = "This file") -> ReleasedModel:
    """Split a released file into its parts.

    Every tensor goes into one of the parts. Loading the parts strictly names missing and unexpected tensors.

    Args:
        published: the content of the file; the tensors lie in it directly, or under "model".
        source: name of the file, for messages.

    Raises:
        CheckpointError: for a file that is no SED.
    """
    state = tensor_table(published, source)
    unknown = [name for name in state if not name.startswith((_PREFIX + _CLIP, _PREFIX + _DECODER))]
    if unknown:
        raise CheckpointError(f"{source} is no SED model: it has {unknown[0]}.")
    clip, decoder = {}, {}
    for name, tensor in state.items():
        inner = name.removeprefix(_PREFIX)
        if inner.startswith(_CLIP):
            clip[inner.removeprefix(_CLIP)] = tensor
        else:
            decoder[_decoder_name(inner.removeprefix(_DECODER))] = tensor
    return ReleasedModel(clip, decoder)


def join_checkpoint(parts: ReleasedModel) -> dict[str, Tensor]:
    """The inverse of `split_checkpoint`: the state dict of a file under the published names."""
    clip = {_CLIP + name: tensor for name, tensor in parts.clip.items()}
    decoder = {_DECODER + _published_name(name): tensor for name, tensor in parts.decoder.items()}
    return {_PREFIX + name: tensor for name, tensor in (clip | decoder).items()}


def _decoder_name(published: str) -> str:
    name = f".{published}"
    for old, new in _RENAMES:
        name = name.replace(old, new)
    return name.removeprefix(".")


def _published_name(name: str) -> str:
    published = f".{name}"
    for old, new in _RENAMES:
        published = published.replace(new, old)
    return published.removeprefix(".")
