"""The file that training writes: a SegCLIP under the published names, with the branch of its training."""

from safetensors.torch import save as serialised

from ovseg_demo.methods.segclip.checkpoint import ReleasedModel, join_checkpoint
from train.common.run_folder import RunFolder
from train.segclip.training import SegCLIPTraining

FILE = "segclip.safetensors"


def save_segclip(folder: RunFolder, trained: SegCLIPTraining) -> None:
    """Write FILE into the folder of a run.

    Args:
        folder: folder of the run.
        trained: the trained model.

    Raises:
        TrainingError: when the file cannot be written.
    """
    state = join_checkpoint(ReleasedModel(trained.clip.state_dict(), trained.branch.state_dict()))
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    folder.replace(FILE, lambda file: file.write(serialised(tensors)))
