"""Vision-language models by the names that command lines take: "mini", an id of the catalogue, or a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.base import VisionLanguageModel
from ovseg_demo.weights import catalogue, loading, reading

if TYPE_CHECKING:
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

# The functions import the models that they make, because every model brings heavy libraries.

MINI = "mini"
"""The name of the bundled model."""

MODEL_HELP = "mini, a CLIP's id of the catalogue, or a file: a CLIP's weights or other heads of the mini model"
"""Help of the command lines that take the name of a model."""

ARCHITECTURES = {(768, 16): "ViT-B-16-quickgelu", (1024, 14): "ViT-L-14-quickgelu"}
"""open_clip architectures by width and patch size of the image tower."""

_PATCH_EMBEDDING = "visual.conv1.weight"


def create_model(name: str, device: str | torch.device = "cpu") -> VisionLanguageModel:
    """A vision-language model by a name as MODEL_HELP describes.

    Args:
        name: "mini", a CLIP's id of the catalogue, or the path of a file.
        device: torch device on which the model runs.

    Raises CheckpointError when the weights are missing, damaged, or neither a CLIP's nor heads of the mini model.
    """
    from ovseg_demo.models.mini.model import MiniModel

    if name == MINI:
        return MiniModel(device)
    if name not in catalogue.entries() and _PATCH_EMBEDDING not in reading.named_tensors(
        reading.read_weights(Path(name))
    ):
        return MiniModel(device, heads=Path(name))
    return create_clip(name, device)


def create_clip(name: str, device: str | torch.device = "cpu", **settings: Any) -> "ClipRegionClassifier":
    """A CLIP as a region classifier.

    Args:
        name: an id of the catalogue, or the path of a file.
        device: torch device on which the model runs.
        settings: further keyword arguments of `ClipRegionClassifier`.

    Raises CheckpointError when the weights are missing, damaged or of another architecture.
    """
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

    state = load_clip_state_dict(name)
    return ClipRegionClassifier(clip_architecture(state, name), name, device, state=state, **settings)


def load_clip_state_dict(name: str) -> dict[str, Tensor]:
    """The tensors of a CLIP, float32, under OpenAI's names.

    Args:
        name: an id of the catalogue, or the path of a file.

    Raises CheckpointError when the weights are missing or damaged.
    """
    from ovseg_demo.models.clip.weights import clip_state_dict

    catalogued = name in catalogue.entries()
    return clip_state_dict(loading.load_state_dict(name) if catalogued else reading.read_weights(Path(name)))


def clip_architecture(state: Mapping[str, Tensor], source: str) -> str:
    """open_clip's name of a CLIP's architecture, one of ARCHITECTURES, by the shape of its patch embedding.

    Args:
        state: tensors under OpenAI's names.
        source: where the tensors are from, for the message.

    Raises CheckpointError for another architecture.
    """
    shape = tuple(state[_PATCH_EMBEDDING].shape) if _PATCH_EMBEDDING in state else ()
    architecture = ARCHITECTURES.get((shape[0], shape[-1])) if len(shape) == 4 else None
    if architecture is None:
        raise CheckpointError(f"{source} is no CLIP {' or '.join(ARCHITECTURES.values())}.")
    return architecture
