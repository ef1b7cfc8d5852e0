"""The file that training leaves: a MaskFormer under OVSeg's names, with what is needed to use it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.checkpoint import NON_OBJECT
from ovseg_demo.proposals.maskformer.model import MaskFormer
from ovseg_demo.weights import loading, reading
from train.common.run_folder import RunFolder
from train.ovseg.maskformer.recipes import Architecture, MaskFormerRecipe
from train.ovseg.maskformer.training import MaskFormerTraining

FILE = "maskformer.safetensors"

_ABOUT = "ovseg-demo"


@dataclass(frozen=True)
class TrainedMaskFormer:
    """A trained model.

    Attributes:
        model: in evaluation mode, on the CPU.
        non_object: (1, D), the embedding of "no object", not normalised.
        clip: whose texts it was trained with.
        shortest, longest: the size at which photos are shown to it.
    """

    model: MaskFormer
    non_object: Tensor
    clip: str
    shortest: int
    longest: int


def save_maskformer(folder: RunFolder, training: MaskFormerTraining, recipe: MaskFormerRecipe) -> None:
    """Write FILE into the folder of a run."""
    state = training.model.state_dict() | {NON_OBJECT: training.non_object}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    about = {"architecture": asdict(recipe.architecture), "clip": recipe.clip, "shown": recipe.shown}
    folder.replace(FILE, lambda file: file.write(serialised(tensors, {_ABOUT: json.dumps(about)})))


def load_trained_maskformer(path: Path) -> TrainedMaskFormer:
    """What `save_maskformer` has written. Raises CheckpointError for another file."""
    state = reading.read_weights(path)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path.name} was not written by train.ovseg.maskformer.") from error
    non_object = state.pop(NON_OBJECT)
    model = Architecture(**about["architecture"]).build(non_object.shape[1])
    loading.load_strict(model, state, path.name)
    return TrainedMaskFormer(model.eval(), non_object, about["clip"], *about["shown"])
