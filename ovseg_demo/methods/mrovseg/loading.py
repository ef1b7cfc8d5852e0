"""A trained MROVSeg from two files of the catalogue: the trained half, and the frozen CLIP."""

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.mrovseg import checkpoint
from ovseg_demo.methods.mrovseg.method import MROVSeg
from ovseg_demo.methods.mrovseg.reader import MROVSegReader
from ovseg_demo.models.clip.weights import clip_state_dict
from ovseg_demo.weights import catalogue, loading


def load_mrovseg(checkpoint_id: str, clip_id: str, device: str) -> MROVSeg:
    """Load a trained model.

    Args:
        checkpoint_id: catalogue id of a file of `train.mrovseg`.
        clip_id: catalogue id of the CLIP it was trained on.
        device: where the model runs.

    Raises CheckpointError when a file is missing or damaged, or does not fit the other.
    """
    entry, clip_entry = catalogue.get(checkpoint_id), catalogue.get(clip_id)
    state, clip_state = loading.load_state_dict(checkpoint_id), clip_state_dict(loading.load_state_dict(clip_id))
    settings = checkpoint.read_settings(entry.path)
    checkpoint.check_clip(entry.path, clip_state, clip_entry.file)
    clip, model = checkpoint.build_mrovseg(clip_state, settings, clip_entry.file)
    checkpoint.load_trained(model, state, entry.file)
    name = f"{clip_id} {catalogue.sha256_of(clip_entry.path)} {checkpoint_id} {catalogue.sha256_of(entry.path)}"
    return MROVSeg(MROVSegReader(clip, model, name, device), READING_SIDE)
