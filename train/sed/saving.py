"""The file that training writes: a SED model under the names of the released files."""

import open_clip
from safetensors.torch import save as serialised

from ovseg_demo.methods.sed import checkpoint
from ovseg_demo.methods.sed.decoder import Decoder
from train.common.run_folder import RunFolder

FILE = "sed.safetensors"


def save_sed(folder: RunFolder, clip: open_clip.CLIP, decoder: Decoder) -> None:
    """Write FILE into the folder of a run.

    Args:
        folder: folder of the run.
        clip: the CLIP with the trained image tower.
        decoder: the trained decoder.

    Raises:
        TrainingError: when the file cannot be written.
    """
    state = checkpoint.join_checkpoint(checkpoint.ReleasedModel(clip.state_dict(), decoder.state_dict()))
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    folder.replace(FILE, lambda file: file.write(serialised(tensors)))
