"""Files of MROVSeg: what training has changed, without the frozen CLIP, which is loaded from a CLIP's own file.

The names are those of `MROVSeg`. The metadata of the file has the settings by which the model is built, and a digest of
the CLIP, because with another CLIP than the one of training the words would come out at random.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.settings import MROVSegSettings
from ovseg_demo.models.clip.weights import build_empty_clip, load_clip_weights, vision_transformer
from ovseg_demo.weights import loading, reading

METADATA_KEY = "mrovseg"
"""The entry of a file's metadata, JSON with "settings", as of `MROVSegSettings.to_json`, and "clip", a `clip_digest`.

It is one entry, because safetensors writes several in random order, and equal files should have equal bytes.
"""

_CLIP, _POSITIONS = "clip_visual.", "clip_visual.positional_embedding"
_DIGESTED = ("visual.conv1.weight", "visual.class_embedding", "visual.proj")


def build_mrovseg(
    clip_state: Mapping[str, Tensor], settings: MROVSegSettings, source: str
) -> tuple[open_clip.CLIP, MROVSeg]:
    """A CLIP, float32, and the MROVSeg on its image tower, whose trained half is initialised at random.

    Args:
        clip_state: the CLIP's tensors, of any precision, under OpenAI's names.
        settings: name the CLIP's architecture.
        source: where the CLIP is from, for messages.

    Raises CheckpointError when the CLIP is of another architecture.
    """
    clip = load_clip_weights(build_empty_clip(settings.architecture), clip_state, source)
    model = MROVSeg(vision_transformer(clip), settings)
    clip.register_module("visual", model.clip_visual)
    return clip, model


def trained_tensors(model: MROVSeg) -> dict[str, Tensor]:
    """The tensors that a file holds: all but those of the frozen CLIP."""
    kept = () if model.settings.freeze_positions else (_POSITIONS,)
    return {name: value for name, value in model.state_dict().items() if name in kept or not name.startswith(_CLIP)}


def load_trained(model: MROVSeg, state: Mapping[str, Tensor], source: str) -> None:
    """Copy the tensors of a file into a model, all or none.

    Args:
        model: built by the settings of the file.
        state: the file's tensors.
        source: names the file in the error.

    Raises CheckpointError that names missing, unexpected and misshapen tensors.
    """
    single = {name: value.float() for name, value in state.items()}
    loading.check_state_dict(trained_tensors(model), single, f"{source} does not fit its settings")
    model.load_state_dict(single, strict=False)  # the CLIP's tensors stay


def file_metadata(settings: MROVSegSettings, clip_state: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of a file of a model with these settings, trained on this CLIP, given by its tensors."""
    return {METADATA_KEY: json.dumps({"settings": settings.to_json(), "clip": clip_digest(clip_state)})}


def read_settings(path: Path) -> MROVSegSettings:
    """The settings in the metadata of a file. Raises CheckpointError when it has none that are valid."""
    try:
        return MROVSegSettings.from_json(_metadata(path)["settings"])
    except ValueError as error:
        raise CheckpointError(f"{path.name} has settings that cannot be used: {error}") from error


def check_clip(path: Path, clip_state: Mapping[str, Tensor], clip_source: str) -> None:
    """Make sure that a file was trained on a CLIP. Raises CheckpointError when it was trained on another one.

    Args:
        path: the file.
        clip_state: the CLIP's tensors.
        clip_source: names the CLIP's file in the error.
    """
    if _metadata(path)["clip"] != clip_digest(clip_state):
        raise CheckpointError(f"{path.name} was trained on another CLIP than {clip_source}.")


def _metadata(path: Path) -> dict[str, str]:
    """The entry METADATA_KEY of a file. Raises CheckpointError when the file has none, or not the two values."""
    try:
        values = json.loads(reading.read_metadata(path)[METADATA_KEY])
        return {name: str(values[name]) for name in ("settings", "clip")}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} does not say how it was trained; files of train.mrovseg do.") from error


def clip_digest(clip_state: Mapping[str, Tensor]) -> str:
    """Hex digits that tell CLIPs apart, the same in half and single precision where the weights were half ones."""
    digest = hashlib.sha256()
    for name in _DIGESTED:
        digest.update(clip_state[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
