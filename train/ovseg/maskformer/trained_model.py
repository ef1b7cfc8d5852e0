"""The file that training writes: a MaskFormer under OVSeg's names, with its sizes and the name of its CLIP."""

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

_METADATA_KEY = "ovseg-demo"


@dataclass(frozen=True)
class TrainedMaskFormer:
    """A trained model.

    Attributes:
        model: in evaluation mode, on the CPU.
        non_object: the embedding of "no object", (1, D), not normalised.
        clip: the CLIP whose text embeddings it was trained with.
        shortest: the shorter side of photos at inference, in pixels.
        longest: the largest longer side of photos at inference, in pixels.
    """

    model: MaskFormer
    non_object: Tensor
    clip: str
    shortest: int
    longest: int


def save_maskformer(folder: RunFolder, training: MaskFormerTraining, recipe: MaskFormerRecipe) -> None:
    """Write FILE into the folder of a run.

    Args:
        folder: folder of the run.
        training: the trained model.
        recipe: the recipe that it was trained with.

    Raises:
        TrainingError: when the file cannot be written.
    """
    state = training.model.state_dict() | {NON_OBJECT: training.non_object}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {"architecture": asdict(recipe.architecture), "clip": recipe.clip, "shown": recipe.shown}
    folder.replace(FILE, lambda file: file.write(serialised(tensors, {_METADATA_KEY: json.dumps(metadata)})))


def load_trained_maskformer(path: Path) -> TrainedMaskFormer:
    """The model of a file that `save_maskformer` has written.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: when the file is missing, damaged or of another kind.
    """
    state = reading.read_weights(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})[_METADATA_KEY])
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path.name} was not written by train.ovseg.maskformer.") from error
    non_object = state.pop(NON_OBJECT)
    model = Architecture(**metadata["architecture"]).build(non_object.shape[1])
    loading.load_strict(model, state, path.name)
    return TrainedMaskFormer(model.eval(), non_object, metadata["clip"], *metadata["shown"])
