"""Files of TagCLIP and ZegCLIP: one table of tensors, a CLIP with deep prompts and a decoder.

Trainings of mmsegmentation leave {"meta", "state_dict", "optimizer"}. Some tensors are of layers that are built but
that nothing reads: the norm before a self-attention that is not there, all of the last layer but what makes masks, the
weights of a class loss that was given up, and in ZegCLIP every self-attention. They are known by name and left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip.decoder import DecoderSizes
from ovseg_demo.weights.loading import tensor_table

_IMAGE, _TEXT, _HEAD = "backbone.", "text_encoder.", "decode_head."
_LAYER_PARTS = {
    "multihead_attn.q": "query",
    "multihead_attn.k": "key",
    "multihead_attn.v": "value",
    "multihead_attn.proj": "out",
    "norm2": "attention_norm",
    "linear1": "fc1",
    "linear2": "fc2",
    "norm3": "mlp_norm",
}
_MASK_PARTS = {"multihead_attn.q": "query", "multihead_attn.k": "key"}
_LEARNER = {
    "self_attn.in_proj_weight": "learner.to_qkv.weight",
    "self_attn.in_proj_bias": "learner.to_qkv.bias",
    "self_attn.out_proj.weight": "learner.out.weight",
    "self_attn.out_proj.bias": "learner.out.bias",
    "norm1.weight": "learner.norm.weight",
    "norm1.bias": "learner.norm.bias",
}
_BOTH = ("weight", "bias")
_LAYER = {True: "decoder.layers.{}.", False: "decoder_1.layers.{}."}
_DESCRIPTOR = {True: "relationship_discriptor.q_proj.", False: "q_proj."}
"""By whether a decoder has TagCLIP's learner; else it is ZegCLIP's. The spelling is theirs."""

_TRUSTY = "disc_token"
_CLASS_WEIGHTS = "loss_decode.criterion.empty_weight"


@dataclass(frozen=True)
class ReleasedModel:
    """The parts of a file.

    Attributes:
        clip: the names of open_clip, whose image tower is a `PromptedTower`.
        decoder: the names of `Decoder`.
        sizes: of the decoder.
    """

    clip: dict[str, Tensor]
    decoder: dict[str, Tensor]
    sizes: DecoderSizes


def split_checkpoint(published: Mapping, source: str = "This file") -> ReleasedModel:
    """Take a file apart; its tensors stand in it, or under "state_dict" or "model".

    Every tensor goes into one of the parts or is known to be unread; what the parts lack is told by whoever loads them.
    Raises CheckpointError for a file that is none of TagCLIP or ZegCLIP, and for tensors that none of them has.
    """
    inside = published.get("state_dict")
    state = tensor_table(inside if isinstance(inside, Mapping) else published, source)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    head = {name.removeprefix(_HEAD): tensor for name, tensor in state.items() if name.startswith(_HEAD)}
    sizes = _sizes(head)
    names = _names(sizes)
    strange = [name for name in state if not name.startswith((_IMAGE, _TEXT, _HEAD))]
    strange += [_HEAD + name for name in head.keys() - names.keys() - _unread(sizes)]
    if strange or not head:
        told = f"it has {min(strange)}" if strange else f"nothing in it is named {_HEAD}…"
        raise CheckpointError(f"{source} is no TagCLIP and no ZegCLIP: {told}.")
    clip = {
        name.replace(_IMAGE, "visual.", 1).removeprefix(_TEXT): tensor
        for name, tensor in state.items()
        if not name.startswith(_HEAD)
    }
    decoder = {ours: head[theirs] for theirs, ours in names.items() if theirs in head}
    return ReleasedModel(clip, decoder, sizes)


def join_checkpoint(parts: ReleasedModel) -> dict[str, Tensor]:
    """The tensors of a file that `split_checkpoint` takes apart, without those that nothing reads."""
    names = {ours: theirs for theirs, ours in _names(parts.sizes).items()}
    clip = {
        name.replace("visual.", _IMAGE, 1) if name.startswith("visual.") else _TEXT + name: tensor
        for name, tensor in parts.clip.items()
    }
    return clip | {_HEAD + names[name]: tensor for name, tensor in parts.decoder.items()}


def _sizes(head: Mapping[str, Tensor]) -> DecoderSizes:
    """Of the decoder with these tensors; how many heads its attention has, no tensor tells."""
    learner = any(name.startswith(_DESCRIPTOR[True]) for name in head)
    descriptor = head.get(f"{_DESCRIPTOR[learner]}bias")
    width = DecoderSizes.width if descriptor is None or not descriptor.ndim else len(descriptor)
    return DecoderSizes(width, learner=learner, trusty=_TRUSTY in head)


def _names(sizes: DecoderSizes) -> dict[str, str]:
    """The names in a file of what a decoder reads, without the file's prefix, and those of `Decoder`."""
    layer = _LAYER[sizes.learner]
    names = {_DESCRIPTOR[sizes.learner] + kind: f"descriptor.{kind}" for kind in _BOTH}
    if sizes.trusty:
        names[_TRUSTY] = "trusty"
    if sizes.learner:
        names |= {layer.format(0) + theirs: ours for theirs, ours in _LEARNER.items()}
    for index in range(sizes.layers):
        parts, place = (_MASK_PARTS, "masks") if index == sizes.layers - 1 else (_LAYER_PARTS, f"layers.{index}")
        names |= {f"{layer.format(index)}{t}.{kind}": f"{place}.{o}.{kind}" for t, o in parts.items() for kind in _BOTH}
    return names


def _unread(sizes: DecoderSizes) -> set[str]:
    """The names in a file of what nothing reads."""
    every = {*_LEARNER, *(f"{part}.{kind}" for part in _LAYER_PARTS for kind in _BOTH)}
    layer = _LAYER[sizes.learner]
    built = {layer.format(index) + part for index in range(sizes.layers) for part in every}
    if sizes.learner:  # there, the other layers have no self-attention, but its norm
        attentions = [part for part in _LEARNER if part.startswith("self_attn")]
        built -= {layer.format(index) + part for index in range(1, sizes.layers) for part in attentions}
    return {_CLASS_WEIGHTS, *built} - _names(sizes).keys()
