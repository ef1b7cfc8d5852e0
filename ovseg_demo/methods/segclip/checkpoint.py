"""Files of SegCLIP: one flat table of tensors, a whole CLIP with the semantic group module, and the training branch.

The released file has 415 tensors, all of the CLIP among them; the published code asks for OpenAI's CLIP file beside it
only to read the sizes of the layers. What inference does not use is known by name: the branch that predicts hidden
pixels (70 tensors, of which the file may leave out the 44 of the pixel decoder), and the class token with its position,
which a CLIP must have to be loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.segclip.group_module import CROSS_LAYERS
from ovseg_demo.methods.segclip.image_tower import PATCH_BLOCKS
from ovseg_demo.methods.segclip.reconstruction import BLOCKS, DECODER_BLOCKS
from ovseg_demo.weights.loading import tensor_table

_CLIP, _DECODER = "clip.", "vis_mae_decoder."
_VISUAL = "clip.visual.transformer."
_KINDS = ("weight", "bias")

_CROSS_LAYER = {
    "ln_x": "query_norm",
    "ln_k": "context_norm",
    "attn.out_proj": "attn.out_proj",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.0",
    "mlp.c_proj": "mlp.2",
}
_GROUP = {
    "norm": "patch_norm",
    "cross_ln": "centre_norm",
    "k_ln": "key_norm",
    "proj_o.ln": "region_mlp.0",
    "proj_o.mlp.fc1": "region_mlp.1",
    "proj_o.mlp.fc2": "region_mlp.3",
}
_BLOCK = ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
_DECODER_PARTS = {"decoder_embed": "embed", "decoder_norm": "norm", "decoder_pred": "predict"}
_DECODER_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class ReleasedModel:
    """The parts of a file.

    Attributes:
        clip: state dict under open_clip's names; the image tower is a `GroupingTower`.
        reconstruction: state dict of `ReconstructionBranch`, or of a part of it; inference does not use it.
    """

    clip: dict[str, Tensor]
    reconstruction: dict[str, Tensor]


def split_checkpoint(published: Mapping, source: str = "This file") -> ReleasedModel:
    """Split a file into its parts.

    Every tensor goes into one of the parts. Loading the parts strictly names missing tensors.

    Args:
        published: the content of the file, with or without the "module." of data-parallel training before the names.
        source: name of the file, for messages.

    Raises:
        CheckpointError: for a file that is not of SegCLIP, and for tensors that it does not have.
    """
    table = tensor_table(published, source)
    state = {name.removeprefix("module."): tensor for name, tensor in table.items()}
    branch = {published: name for name, published in _branch_names()}
    clip = {_to_open_clip(name): tensor for name, tensor in state.items() if name not in branch}
    unknown = [name for name in state if name not in branch and not name.startswith(_CLIP)]
    if unknown or not any(name.startswith("visual.group.") for name in clip):
        reason = f"it has {min(unknown)}" if unknown else "it has no semantic group module"
        raise CheckpointError(f"{source} is no SegCLIP: {reason}.")
    return ReleasedModel(clip, {branch[name]: tensor for name, tensor in state.items() if name in branch})


def join_checkpoint(parts: ReleasedModel) -> dict[str, Tensor]:
    """The inverse of `split_checkpoint`: the state dict of a file under the published names."""
    branch = dict(_branch_names())
    clip = {_to_published(name): tensor for name, tensor in parts.clip.items()}
    return clip | {branch[name]: tensor for name, tensor in parts.reconstruction.items()}


def _to_open_clip(published: str) -> str:
    """The name in the CLIP of a tensor of a file; a name that is not known stays as it is, so that loading reports it.

    The blocks after the semantic group module are counted anew in a file.
    """
    if not published.startswith(_VISUAL):
        return published.removeprefix(_CLIP)
    stage, _, rest = published.removeprefix(_VISUAL).partition(".")
    if stage == "semantic_layer2":
        return f"visual.group.{_GROUP_NAMES.get(rest, rest)}"
    index, _, part = rest.partition(".")
    if stage not in ("layers0", "layers2") or not index.isdecimal():
        return published.removeprefix(_CLIP)
    return f"visual.transformer.resblocks.{int(index) + (PATCH_BLOCKS if stage == 'layers2' else 0)}.{part}"


def _to_published(name: str) -> str:
    """The name in a file of a tensor of the CLIP."""
    if name.startswith("visual.group."):
        return f"{_VISUAL}semantic_layer2.{_PUBLISHED_GROUP_NAMES[name.removeprefix('visual.group.')]}"
    if not name.startswith("visual.transformer.resblocks."):
        return _CLIP + name
    index, _, part = name.removeprefix("visual.transformer.resblocks.").partition(".")
    late = int(index) >= PATCH_BLOCKS
    return f"{_VISUAL}layers{2 if late else 0}.{int(index) - PATCH_BLOCKS * late}.{part}"


def _group_names() -> Iterator[tuple[str, str]]:
    """The names of the semantic group module's tensors, ours and published."""
    yield from (("centres", "semantic_center"), ("key.weight", "k_conv.weight"), ("value.weight", "v_conv.weight"))
    for kind in _KINDS:
        yield from ((f"{ours}.{kind}", f"{published}.{kind}") for published, ours in _GROUP.items())
        for layer in range(CROSS_LAYERS):
            ours, published = f"cross_attention.{layer}.", f"cross_att.{layer}."
            yield f"{ours}attn.in_proj_{kind}", f"{published}attn.in_proj_{kind}"
            for theirs, part in _CROSS_LAYER.items():
                yield f"{ours}{part}.{kind}", f"{published}{theirs}.{kind}"


def _branch_names() -> Iterator[tuple[str, str]]:
    """The names of the reconstruction branch's tensors, ours and published."""
    yield from (("decoder.mask_token", f"{_DECODER}mask_token"), ("decoder.positions", f"{_DECODER}decoder_pos_embed"))
    for kind in _KINDS:
        yield f"mixing.{kind}", f"{_VISUAL}reconstruct_layer2.rec_proj_a.a_fc.{kind}"
        for index in range(BLOCKS):
            ours, published = f"blocks.{index}.", f"{_VISUAL}layers_mae2.{index}."
            yield f"{ours}attn.in_proj_{kind}", f"{published}attn.in_proj_{kind}"
            yield from ((f"{ours}{part}.{kind}", f"{published}{part}.{kind}") for part in _BLOCK)
        for theirs, part in _DECODER_PARTS.items():
            yield f"decoder.{part}.{kind}", f"{_DECODER}{theirs}.{kind}"
        for index in range(DECODER_BLOCKS):
            ours, published = f"decoder.blocks.{index}.", f"{_DECODER}decoder_blocks.{index}."
            yield from ((f"{ours}{part}.{kind}", f"{published}{part}.{kind}") for part in _DECODER_BLOCK)


_PUBLISHED_GROUP_NAMES = dict(_group_names())
_GROUP_NAMES = {published: ours for ours, published in _PUBLISHED_GROUP_NAMES.items()}
