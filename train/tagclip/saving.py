"""The file that training writes: a TagCLIP or ZegCLIP under the published names, with a record of its training."""

import open_clip
from safetensors.torch import save as serialised

from ovseg_demo.methods.tagclip import checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, TrainingInfo
from train.common.run_folder import RunFolder

FILE = "tagclip.safetensors"


def save_tagclip(
    folder: RunFolder, clip: open_clip.CLIP, decoder: Decoder, sizes: DecoderSizes, info: TrainingInfo
) -> None:
    """Write FILE into the folder of a run.

    Args:
        folder: folder of the run.
        clip: the CLIP with the trained prompts.
        decoder: the trained decoder.
        sizes: sizes of the decoder.
        info: record of the training.

    Raises:
        TrainingError: when the file cannot be written.
    """
    towers = clip.state_dict()
    del towers["logit_scale"]  # no file of this kind has it, and nothing reads it
    state = checkpoint.join_checkpoint(checkpoint.ReleasedModel(towers, decoder.state_dict(), sizes))
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    folder.replace(FILE, lambda file: file.write(serialised(tensors, {METADATA_KEY: info.to_json()})))
