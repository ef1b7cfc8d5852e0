"""A vision-language model by the name that a command line gives it: an id of the catalogue, or a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ovseg_demo import checkpoints, weight_file
from ovseg_demo.errors import CheckpointError
from ovseg_demo.vlm.base import VisionLanguageModel

if TYPE_CHECKING:
    from ovseg_demo.vlm.open_clip import OpenClipVLM

# The models are imported when they are wanted: each brings heavy libraries.

MINI = "mini"
HELP = "mini, a CLIP's id of the catalogue, or a file: a CLIP's weights or other heads of the mini model"

ARCHITECTURES = {(768, 16): "ViT-B-16-quickgelu", (1024, 14): "ViT-L-14-quickgelu"}
"""open_clip architectures by width and patch size of the image tower."""

_PATCHES = "visual.conv1.weight"


def model(name: str, device: str = "cpu") -> VisionLanguageModel:
    """The model that HELP describes. Raises CheckpointError when it is missing, damaged or something else."""
    from ovseg_demo.vlm.mini import MiniVLM

    if name == MINI:
        return MiniVLM(device)
    if name not in checkpoints.catalogue() and _PATCHES not in weight_file.tensors(weight_file.read(Path(name))):
        return MiniVLM(device, heads=Path(name))
    return clip(name, device)


def clip(name: str, device: str = "cpu", **settings) -> "OpenClipVLM":
    """A CLIP by catalogue id or file; `settings` as of OpenClipVLM. Raises CheckpointError as `model` does."""
    from ovseg_demo.vlm.open_clip import OpenClipVLM

    state = clip_state(name)
    return OpenClipVLM(architecture(state, name), name, device, state=state, **settings)


def clip_state(name: str) -> dict[str, Tensor]:
    """The tensors of a CLIP by catalogue id or file, under OpenAI's names. Raises CheckpointError."""
    from ovseg_demo.vlm.open_clip import clip_state_dict

    known = name in checkpoints.catalogue()
    return clip_state_dict(checkpoints.load_state_dict(name) if known else weight_file.read(Path(name)))


def architecture(state: Mapping[str, Tensor], source: str) -> str:
    """The architecture in ARCHITECTURES of a CLIP's tensors. Raises CheckpointError when it is none of them."""
    shape = tuple(state[_PATCHES].shape) if _PATCHES in state else ()
    found = ARCHITECTURES.get((shape[0], shape[-1])) if len(shape) == 4 else None
    if found is None:
        raise CheckpointError(f"{source} is no CLIP {' or '.join(ARCHITECTURES.values())}.")
    return found
