"""The file that training writes: what is trained of a MROVSeg, with its settings; CLIP is in a file of its own."""

import open_clip
from safetensors.torch import save as serialised

from ovseg_demo.methods.mrovseg.checkpoint import file_metadata, trained_tensors
from ovseg_demo.methods.mrovseg.model import MROVSeg
from train.common.run_folder import RunFolder

FILE = "mrovseg.safetensors"


def save_mrovseg(folder: RunFolder, clip: open_clip.CLIP, model: MROVSeg) -> None:
    """Write FILE into the folder of a run.

    Args:
        folder: folder of the run.
        clip: the frozen CLIP, of which the file gets a digest.
        model: the trained model.

    Raises:
        TrainingError: when the file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained_tensors(model).items()}
    metadata = file_metadata(model.settings, clip.state_dict())
    folder.replace(FILE, lambda file: file.write(serialised(tensors, metadata)))
