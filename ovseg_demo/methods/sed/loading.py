"""SED (Xie et al., CVPR 2024): a hierarchical CLIP's cost maps, decoded in three stages."""

from typing import TYPE_CHECKING

import torch

from ovseg_demo.errors import CheckpointError
from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.sed.checkpoint import ReleasedModel, split_checkpoint
from ovseg_demo.methods.sed.decoder import Decoder, DecoderSizes
from ovseg_demo.weights import catalogue, loading

if TYPE_CHECKING:
    from ovseg_demo.methods.sed.method import SED

ARCHITECTURES = {
    "convnext_base_w_320": DecoderSizes(skips=(512, 256, 128)),
    "convnext_large_d_320": DecoderSizes(skips=(768, 384, 192)),
}
"""open_clip names of the CLIPs of the released models, and the decoder that belongs to each."""


def load_sed(checkpoint_id: str, device: str) -> "SED":
    """Load a model from one file with the published names.

    Args:
        checkpoint_id: an id of the catalogue.
        device: where the model runs.

    Raises:
        CheckpointError: when the file is missing, damaged or does not fit.
    """
    # Imported here, because loading the mini model must not wait for the import of open_clip.
    from ovseg_demo.methods.sed.cost_maps import ClipCostMaps
    from ovseg_demo.methods.sed.method import SED
    from ovseg_demo.methods.sed.optimised_decoder import OptimisedDecoder
    from ovseg_demo.models.clip.convnext import HierarchicalClip
    from ovseg_demo.models.clip.optimised import native_precision

    entry = catalogue.get(checkpoint_id)
    released = split_checkpoint(loading.load_state_dict(checkpoint_id), entry.file)
    architecture = architecture_of(released, entry.file)
    decoder = Decoder(ARCHITECTURES[architecture])
    loading.load_strict(decoder, released.decoder, entry.file)
    weights = f"{checkpoint_id} {catalogue.sha256_of(entry.path)}"
    clip = HierarchicalClip(architecture, released.clip, weights, device, source=entry.file)
    inference = OptimisedDecoder(decoder.to(device).eval(), native_precision(torch.device(device)))
    return SED(ClipCostMaps(clip), inference, READING_SIDE)


def architecture_of(released: ReleasedModel, source: str) -> str:
    """The key in ARCHITECTURES of the CLIP to which the decoder of a file belongs.

    Args:
        released: the parts of the file.
        source: name of the file, for messages.

    Raises:
        CheckpointError: for a decoder that belongs to another CLIP.
    """
    weight = released.decoder.get("skips.0.weight")
    channels = weight.shape[1] if weight is not None and weight.ndim == 4 else None
    for architecture, sizes in ARCHITECTURES.items():
        if sizes.skips[0] == channels:
            return architecture
    raise CheckpointError(f"{source} holds no decoder of SED for {' or '.join(ARCHITECTURES)}.")
