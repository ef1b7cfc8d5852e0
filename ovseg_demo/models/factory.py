"""A vision-language model by the name that a command line gives it: an id of the catalogue, or a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.base import VisionLanguageModel
from ovseg_demo.weights import catalogue, loading, reading

if TYPE_CHECKING:
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

# The models are imported when they are wanted: each brings heavy libraries.

MINI = "mini"
MODEL_HELP = "mini, a CLIP's id of the catalogue, or a file: a CLIP's weights or other heads of the mini model"

ARCHITECTURES = {(768, 16): "ViT-B-16-quickgelu", (1024, 14): "ViT-L-14-quickgelu"}
"""open_clip architectures by width and patch size of the image tower."""

_PATCHES = "visual.conv1.weight"


def create_model(name: str, device: str = "cpu") -> VisionLanguageModel:
    """The model that HELP describes. Raises CheckpointError when it is missing, damaged or something else."""
    from ovseg_demo.models.mini.model import MiniModel

    if name == MINI:
        return MiniModel(device)
    if name not in catalogue.entries() and _PATCHES not in reading.named_tensors(reading.read_weights(Path(name))):
        return MiniModel(device, heads=Path(name))
    return create_clip(name, device)


def create_clip(name: str, device: str = "cpu", **settings) -> "ClipRegionClassifier":
    """A CLIP by catalogue id or file; `settings` are those of ClipRegionClassifier.

    Raises CheckpointError as `create_model` does.
    """
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

    state = load_clip_state_dict(name)
    return ClipRegionClassifier(clip_architecture(state, name), name, device, state=state, **settings)


def load_clip_state_dict(name: str) -> dict[str, Tensor]:
    """The tensors of a CLIP by catalogue id or file, under OpenAI's names. Raises CheckpointError."""
    from ovseg_demo.models.clip.weights import clip_state_dict

    known = name in catalogue.entries()
    return clip_state_dict(loading.load_state_dict(name) if known else reading.read_weights(Path(name)))


def clip_architecture(state: Mapping[str, Tensor], source: str) -> str:
    """The architecture in ARCHITECTURES of a CLIP's tensors. Raises CheckpointError when it is none of them."""
    shape = tuple(state[_PATCHES].shape) if _PATCHES in state else ()
    found = ARCHITECTURES.get((shape[0], shape[-1])) if len(shape) == 4 else None
    if found is None:
        raise CheckpointError(f"{source} is no CLIP {' or '.join(ARCHITECTURES.values())}.")
    return found
