"""TagCLIP (Li et al.), and ZegCLIP (Zhou et al., CVPR 2023), which is TagCLIP without the trusty token."""

from typing import TYPE_CHECKING

from ovseg_demo import checkpoints

if TYPE_CHECKING:
    from ovseg_demo.methods.tagclip.method import TagCLIP


def load(checkpoint_id: str, device: str) -> "TagCLIP":
    """A model in one file. Raises CheckpointError when it is missing, damaged or does not fit.

    Args:
        checkpoint_id: catalogue id.
        device: where it runs.
    """
    # Here, because the mini model's decoder must not wait for open_clip.
    from ovseg_demo.fused import fuse
    from ovseg_demo.methods.tagclip.about import of_file, published
    from ovseg_demo.methods.tagclip.decoder import Decoder
    from ovseg_demo.methods.tagclip.method import TagCLIP
    from ovseg_demo.methods.tagclip.reader import ClipReader
    from ovseg_demo.methods.tagclip.released import split

    entry = checkpoints.get(checkpoint_id)
    released = split(checkpoints.load_state_dict(checkpoint_id), entry.file)
    about = published(checkpoint_id) if checkpoint_id.startswith("zegclip-") else of_file(entry.path)
    decoder = Decoder(released.sizes)
    checkpoints.load_strict(decoder, released.decoder, entry.file)
    fuse(decoder)
    weights = f"{checkpoint_id} {checkpoints.sha256_of(entry.path)}"
    reader = ClipReader(released.clip, weights, about.templates, device, source=entry.file)
    return TagCLIP(reader, decoder.to(device), about)
