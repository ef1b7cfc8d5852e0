"""TagCLIP (Li et al.), and ZegCLIP (Zhou et al., CVPR 2023), which is TagCLIP without the trusty token."""

from typing import TYPE_CHECKING

from ovseg_demo.image import READING_SIDE
from ovseg_demo.weights import catalogue, loading

if TYPE_CHECKING:
    from ovseg_demo.methods.tagclip.method import TagCLIP
    from ovseg_demo.methods.tagclip.training_info import TrainingInfo


def load_tagclip(checkpoint_id: str, device: str, info: "TrainingInfo | None" = None) -> "TagCLIP":
    """Load TagCLIP or ZegCLIP from one file.

    Args:
        checkpoint_id: an id of the catalogue.
        device: where the model runs.
        info: how the model was trained; None reads it from the file, as `train.tagclip` writes it.

    Raises:
        CheckpointError: when the file is missing, damaged or does not fit.
    """
    # Imported here, because loading the mini model must not wait for the import of open_clip.
    from ovseg_demo.methods.tagclip.checkpoint import split_checkpoint
    from ovseg_demo.methods.tagclip.decoder import Decoder
    from ovseg_demo.methods.tagclip.image_encoder import ClipWindowEncoder
    from ovseg_demo.methods.tagclip.method import TagCLIP
    from ovseg_demo.methods.tagclip.training_info import read_training_info
    from ovseg_demo.runtime.fused_layers import fuse_layers

    entry = catalogue.get(checkpoint_id)
    released = split_checkpoint(loading.load_state_dict(checkpoint_id), entry.file)
    info = info or read_training_info(entry.path)
    decoder = Decoder(released.sizes)
    loading.load_strict(decoder, released.decoder, entry.file)
    fuse_layers(decoder)
    weights = f"{checkpoint_id} {catalogue.sha256_of(entry.path)}"
    encoder = ClipWindowEncoder(released.clip, weights, info.templates, device, source=entry.file)
    return TagCLIP(encoder, decoder.to(device), info, READING_SIDE)
