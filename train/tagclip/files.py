"""The file that training leaves: a TagCLIP or ZegCLIP under the names of the published code, and what it was taught."""

import open_clip
from safetensors.torch import save as serialised

from ovseg_demo.methods.tagclip import released
from ovseg_demo.methods.tagclip.about import METADATA, About
from ovseg_demo.methods.tagclip.decoder import Decoder, Sizes
from train.common.folder import RunFolder

FILE = "tagclip.safetensors"


def save(folder: RunFolder, clip: open_clip.CLIP, decoder: Decoder, sizes: Sizes, about: About) -> None:
    """Write FILE into the folder of a run."""
    towers = clip.state_dict()
    del towers["logit_scale"]  # no file of this kind has it, and nothing reads it
    state = released.join(released.Released(towers, decoder.state_dict(), sizes))
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    folder.replace(FILE, lambda file: file.write(serialised(tensors, {METADATA: about.to_json()})))
