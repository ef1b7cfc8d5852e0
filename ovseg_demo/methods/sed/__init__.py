"""SED (Xie et al., CVPR 2024): a hierarchical CLIP's cost maps, decoded in three stages."""

from typing import TYPE_CHECKING

import torch

from ovseg_demo import checkpoints
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.sed.decoder import Decoder, Sizes
from ovseg_demo.methods.sed.released import Released, split

if TYPE_CHECKING:
    from ovseg_demo.methods.sed.method import SED

ARCHITECTURES = {
    "convnext_base_w_320": Sizes(skips=(512, 256, 128)),
    "convnext_large_d_320": Sizes(skips=(768, 384, 192)),
}
"""open_clip names of the CLIPs of the released models, and the decoder that belongs to each."""


def load(checkpoint_id: str, device: str) -> "SED":
    """A model in one file, as published. Raises CheckpointError when it is missing, damaged or does not fit.

    Args:
        checkpoint_id: catalogue id.
        device: where it runs.
    """
    # Here, because the mini model's decoder must not wait for open_clip.
    from ovseg_demo.methods.sed.inference import Inference
    from ovseg_demo.methods.sed.method import SED
    from ovseg_demo.methods.sed.reader import ClipCosts
    from ovseg_demo.vlm.clip_inference import native_precision
    from ovseg_demo.vlm.convnext import HierarchicalClip

    entry = checkpoints.get(checkpoint_id)
    released = split(checkpoints.load_state_dict(checkpoint_id), entry.file)
    architecture = architecture_of(released, entry.file)
    decoder = Decoder(ARCHITECTURES[architecture])
    checkpoints.load_strict(decoder, released.decoder, entry.file)
    weights = f"{checkpoint_id} {checkpoints.sha256_of(entry.path)}"
    clip = HierarchicalClip(architecture, released.clip, weights, device, source=entry.file)
    inference = Inference(decoder.to(device).eval(), native_precision(torch.device(device)))
    return SED(ClipCosts(clip), inference)


def architecture_of(released: Released, source: str) -> str:
    """The CLIP in ARCHITECTURES that a file's decoder belongs to. Raises CheckpointError for a decoder of another."""
    given = released.decoder.get("skips.0.weight")
    channels = given.shape[1] if given is not None and given.ndim == 4 else None
    for architecture, sizes in ARCHITECTURES.items():
        if sizes.skips[0] == channels:
            return architecture
    raise CheckpointError(f"{source} holds no decoder of SED for {' or '.join(ARCHITECTURES)}.")
