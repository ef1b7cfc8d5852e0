"""SED's released files (Xie et al., CVPR 2024): one table of tensors, the CLIP and the decoder, for each of two sizes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg_demo.errors import CheckpointError

_PREFIX = "sem_seg_head.predictor."
_CLIP, _DECODER = "clip_model.", "transformer."
_RENAMED = (
    (r"^conv1\.", "embed."),
    (r"^decoder_guidance_projection\.(\d)\.0\.", r"skips.\1."),
    (r"^decoder_corr_guidance_projection\.(\d)\.0\.", r"cost_skips.\1."),
    (r"^head([012])\.", r"heads.\1."),
    (r"^head\.", "heads.3."),
    (r"^decoder1\.", "stages.0."),
    (r"^decoder2\.", "stages.1."),
    (r"^decoder3\.", "stages.2."),
    (r"\.cnext\.gamma$", ".spatial.gain"),
    (r"\.cnext\.dwconv\.", ".spatial.depthwise."),
    (r"\.cnext\.norm\.", ".spatial.norm."),
    (r"\.cnext\.pwconv1\.", ".spatial.widen."),
    (r"\.cnext\.pwconv2\.", ".spatial.narrow."),
    (r"\.attention\.attention\.q\.", ".classes.query."),
    (r"\.attention\.attention\.k\.", ".classes.key."),
    (r"\.attention\.attention\.v\.", ".classes.value."),
    (r"\.attention\.MLP\.0\.", ".classes.widen."),
    (r"\.attention\.MLP\.2\.", ".classes.narrow."),
    (r"\.attention\.norm1\.", ".classes.norm."),
    (r"\.attention\.norm2\.", ".classes.mlp_norm."),
    (r"\.conv\.double_conv\.", ".mix."),
)
"""Names in the file, without what they all begin with, and in our `Decoder`, one after the other."""


@dataclass(frozen=True)
class Released:
    """The parts of a released file.

    Attributes:
        clip: open_clip's names, the whole CLIP ConvNeXt with its text tower.
        decoder: the names of `Decoder`.
    """

    clip: dict[str, Tensor]
    decoder: dict[str, Tensor]


def split(published: Mapping, source: str = "This file") -> Released:
    """Take a released file apart; its tensors stand in it, or under "model".

    Every tensor goes into one of the parts; what they lack or should not have is told by whoever loads them. Raises
    CheckpointError for a file that is no SED.
    """
    state = published.get("model", published)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source} holds no weights: expected a table of tensors.")
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
    return Released(clip, decoder)


def _ours(name: str) -> str:
    for theirs, ours in _RENAMED:
        name = re.sub(theirs, ours, name)
    return name
