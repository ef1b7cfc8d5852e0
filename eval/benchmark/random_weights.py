"""Random weights in place of missing weight files.

Seconds and memory depend on the shapes of weights; they depend on the values only where a method skips work. Random
weights are written to a file and read by the method's own loading code, so that nothing else differs. A file whose
size or sha256 is catalogued cannot be replaced: loading it would rightly fail.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.catalogue import Checkpoint

VARIABLE = "OVSEG_CHECKPOINTS"
"""The environment variable that names the folder of the weight files."""


def clip(architecture: str, prompts: bool = False) -> dict[str, Tensor]:
    """The state dict of a CLIP in half precision, like the published files.

    Args:
        architecture: open_clip's name of the CLIP.
        prompts: whether it has mask prompts.
    """
    import open_clip

    from ovseg_demo.models.clip.mask_prompts import DEPTH

    state = open_clip.create_model(architecture, pretrained=None, pretrained_text=False).state_dict()
    if prompts:
        tokens, width = state["visual.positional_embedding"].shape
        state["visual.mask_embedding"] = torch.randn(DEPTH, tokens - 1, width)
    return {name: value.half() for name, value in state.items()}


def _ovseg() -> dict[str, Tensor]:
    """A whole OVSeg model, Swin-B with ViT-L/14."""
    from ovseg_demo.proposals.maskformer.checkpoint import CLIP_PREFIX, NON_OBJECT, UNUSED
    from ovseg_demo.proposals.maskformer.model import build_maskformer

    prompted = clip("ViT-L-14-quickgelu", prompts=True)
    text_width = prompted["text_projection"].shape[1]
    state = build_maskformer("swinb", text_width).state_dict() | {
        CLIP_PREFIX + name: value for name, value in prompted.items()
    }
    return (
        state | {name: torch.zeros(shape) for name, shape in UNUSED.items()} | {NON_OBJECT: torch.randn(1, text_width)}
    )


def _clip_convnext(architecture: str) -> dict[str, Tensor]:
    """A CLIP ConvNeXt, in single precision as LAION's files are."""
    import open_clip

    config: Any = open_clip.get_model_config(architecture)
    return open_clip.CLIP(**config).state_dict()


def _sed(architecture: str) -> dict[str, Tensor]:
    """A whole SED model, named as in the released files."""
    from ovseg_demo.methods.sed.checkpoint import ReleasedModel, join_checkpoint
    from ovseg_demo.methods.sed.decoder import Decoder
    from ovseg_demo.methods.sed.loading import ARCHITECTURES

    return join_checkpoint(
        ReleasedModel(_clip_convnext(architecture), Decoder(ARCHITECTURES[architecture]).state_dict())
    )


def _tagclip(prompts: int, trusty: bool) -> dict[str, Tensor]:
    """A whole TagCLIP, or ZegCLIP without the trusty token, named as in the released files."""
    import open_clip

    from ovseg_demo.methods.tagclip.checkpoint import ReleasedModel, join_checkpoint
    from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
    from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower

    settings: Any = open_clip.get_model_config("ViT-B-16-quickgelu")
    settings["vision_cfg"]["image_size"] = 512
    made: Any = open_clip.CLIP(**settings)
    made.visual = PromptedTower(made.visual, prompts)
    made.visual.initialise_prompts()
    state = made.state_dict()
    del state["logit_scale"]
    sizes = DecoderSizes(learner=trusty, trusty=trusty)
    return join_checkpoint(ReleasedModel(state, Decoder(sizes).state_dict(), sizes))


def _segclip() -> dict[str, Tensor]:
    """A whole SegCLIP, named as in the released file."""
    import open_clip

    from ovseg_demo.methods.segclip.checkpoint import ReleasedModel, join_checkpoint
    from ovseg_demo.methods.segclip.image_tower import GroupingTower
    from ovseg_demo.methods.segclip.reconstruction import reconstruction_branch

    config: Any = open_clip.get_model_config("ViT-B-16-quickgelu")
    made: Any = open_clip.CLIP(**config)
    tower = made.visual = GroupingTower(made.visual)
    return join_checkpoint(ReleasedModel(made.state_dict(), reconstruction_branch(tower).state_dict()))


def _mrovseg(settings_name: str) -> dict[str, Tensor]:
    """What a file of MROVSeg holds: all but the CLIP."""
    import open_clip

    from ovseg_demo.methods.mrovseg.checkpoint import trained_tensors
    from ovseg_demo.methods.mrovseg.model import MROVSeg
    from ovseg_demo.methods.mrovseg.settings import SETTINGS
    from ovseg_demo.models.clip.weights import vision_transformer

    settings = SETTINGS[settings_name]
    config: Any = open_clip.get_model_config(settings.architecture)
    return trained_tensors(MROVSeg(vision_transformer(open_clip.CLIP(**config)), settings))


BUILDERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "clip-vit-b16": partial(clip, "ViT-B-16-quickgelu"),
    "clip-vit-l14": partial(clip, "ViT-L-14-quickgelu"),
    "clip-vit-l14-336": partial(clip, "ViT-L-14-336-quickgelu"),
    "ovseg-clip-vit-b16": partial(clip, "ViT-B-16-quickgelu"),
    "ovseg-clip-vit-l14": partial(clip, "ViT-L-14-quickgelu"),
    "ovseg-own": _ovseg,
    "clip-convnext-base-w-320": partial(_clip_convnext, "convnext_base_w_320"),
    "clip-convnext-large-d-320": partial(_clip_convnext, "convnext_large_d_320"),
    "sed-convnext-b": partial(_sed, "convnext_base_w_320"),
    "sed-convnext-l": partial(_sed, "convnext_large_d_320"),
    "sed-own": partial(_sed, "convnext_base_w_320"),
    "mrovseg-own": partial(_mrovseg, "ViT-B-16"),
    "mrovseg-own-l": partial(_mrovseg, "ViT-L-14-336"),
    "segclip": _segclip,
    "segclip-own": _segclip,
    "tagclip-own": partial(_tagclip, 100, trusty=True),
    **{
        f"zegclip-{data}{setting}": partial(_tagclip, prompts, trusty=False)
        for data, prompts in (("voc", 10), ("coco", 100))
        for setting in ("", "-transductive", "-supervised")
    },
}
"""For each checkpoint id a function that makes random tensors with the names and shapes of its file."""


def _tagclip_metadata() -> dict[str, str]:
    from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, published_training_info

    return {METADATA_KEY: published_training_info("coco", "inductive").to_json()}


def _mrovseg_metadata(settings_name: str, clip_id: str) -> dict[str, str]:
    """The metadata of a MROVSeg that was trained on the CLIP that is here, or on the random one in its place."""
    from ovseg_demo.methods.mrovseg.checkpoint import file_metadata
    from ovseg_demo.methods.mrovseg.settings import SETTINGS
    from ovseg_demo.models.clip.weights import clip_state_dict
    from ovseg_demo.weights import loading

    present = catalogue.get(clip_id).present
    state = loading.load_state_dict(clip_id) if present else _seeded(BUILDERS[clip_id])
    return file_metadata(SETTINGS[settings_name], clip_state_dict(state))


_METADATA: dict[str, Callable[[], dict[str, str]]] = {
    "mrovseg-own": partial(_mrovseg_metadata, "ViT-B-16", "clip-vit-b16"),
    "mrovseg-own-l": partial(_mrovseg_metadata, "ViT-L-14-336", "clip-vit-l14-336"),
    "tagclip-own": _tagclip_metadata,
}
"""For each checkpoint id a function that makes the metadata of its file."""


@contextmanager
def completed(entry: MethodSpec) -> Iterator[Path]:
    """A temporary folder with all weight files of a method, for VARIABLE to name.

    The folder links existing files and holds random weights in place of missing files.

    Args:
        entry: the method.

    Raises:
        CheckpointError: when a missing file cannot be replaced.
    """
    checkpoints = map(catalogue.get, entry.checkpoints)
    needed = [checkpoint for checkpoint in checkpoints if not (checkpoint.bundled and checkpoint.present)]
    for checkpoint in needed:
        if not checkpoint.present:
            _check_replaceable(checkpoint)
    with tempfile.TemporaryDirectory(prefix="random-weights-") as name:
        for checkpoint in needed:
            path = Path(name) / checkpoint.file
            if checkpoint.present:
                path.symlink_to(checkpoint.path.absolute())
            else:
                write(BUILDERS[checkpoint.id], path, _METADATA.get(checkpoint.id, dict)())
        yield Path(name)


def _check_replaceable(checkpoint: Checkpoint) -> None:
    reason = None
    if checkpoint.bundled:
        reason = "it ships with the demo and is read from there only"
    elif checkpoint.published:
        reason = "its catalogued hash or size would not match"
    elif checkpoint.id not in BUILDERS:
        reason = "its architecture is not in the benchmark's table"
    if reason:
        raise CheckpointError(f"{checkpoint.file} is not here, and random weights cannot replace it: {reason}.")


def write(build: Callable[[], dict[str, Tensor]], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write random weights, always from the same random numbers.

    Args:
        build: makes the tensors by name.
        path: the file that is written, safetensors or a pickle of torch by its suffix.
        metadata: metadata of a safetensors file.
    """
    state = _seeded(build)
    if path.suffix == ".safetensors":
        save_file(state, path, metadata)
    else:
        torch.save(state, path)


def _seeded(build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `build` makes, always from the same random numbers."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return build()
