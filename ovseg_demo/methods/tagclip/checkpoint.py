"""Files of TagCLIP and ZegCLIP: one state dict with a CLIP with deep prompts and a decoder.

Training with mmsegmentation writes {"meta", "state_dict", "optimizer"}. Some tensors belong to layers that the code
builds but never uses: the norm of an absent self-attention, all of the last layer but its queries and keys, the weights
of an abandoned class loss, and in ZegCLIP every self-attention. These tensors are recognised by name and left out.
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
_KINDS = ("weight", "bias")
_LAYER = {True: "decoder.layers.{}.", False: "decoder_1.layers.{}."}
_DESCRIPTOR = {True: "relationship_discriptor.q_proj.", False: "q_proj."}
"""Prefixes of the layers and of the relationship descriptor in a file, by whether the decoder has TagCLIP's learner.

Without a learner it is ZegCLIP's. The spelling is the published one.
"""

_TRUSTY = "disc_token"
_CLASS_WEIGHTS = "loss_decode.criterion.empty_weight"


@dataclass(frozen=True)
class ReleasedModel:
    """The parts of a file.

    Attributes:
        clip: state dict under open_clip's names; the image tower is a `PromptedTower`.
        decoder: state dict of `Decoder`.
        sizes: of the decoder.
    """

    clip: dict[str, Tensor]
    decoder: dict[str, Tensor]
    sizes: DecoderSizes


def split_checkpoint(published: Mapping, source: str = "This file") -> ReleasedModel:
    """Split a file into its parts.

    Every tensor goes into one of the parts, or is left out because the published code does not use it. Loading the
    parts strictly names missing tensors.

    Args:
        published: the content of the file; the tensors lie in it directly, or under "state_dict" or "model".
        source: name of the file, for messages.

    Raises:
        CheckpointError: for a file that is neither of TagCLIP nor of ZegCLIP, and for tensors that neither has.
    """
    inside = published.get("state_dict")
    state = tensor_table(inside if isinstance(inside, Mapping) else published, source)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    head = {name.removeprefix(_HEAD): tensor for name, tensor in state.items() if name.startswith(_HEAD)}
    sizes = _sizes(head)
    names = _names(sizes)
    unknown = [name for name in state if not name.startswith((_IMAGE, _TEXT, _HEAD))]
    unknown += [_HEAD + name for name in head.keys() - names.keys() - _unused(sizes)]
    if unknown or not head:
        reason = f"it has {min(unknown)}" if unknown else f"nothing in it is named {_HEAD}…"
        raise CheckpointError(f"{source} is no TagCLIP and no ZegCLIP: {reason}.")
    clip = {
        name.replace(_IMAGE, "visual.", 1).removeprefix(_TEXT): tensor
        for name, tensor in state.items()
        if not name.startswith(_HEAD)
    }
    decoder = {name: head[published] for published, name in names.items() if published in head}
    return ReleasedModel(clip, decoder, sizes)


def join_checkpoint(parts: ReleasedModel) -> dict[str, Tensor]:
    """The inverse of `split_checkpoint`: the state dict of a file under the published names, without unused tensors."""
    names = {name: published for published, name in _names(parts.sizes).items()}
    clip = {
        name.replace("visual.", _IMAGE, 1) if name.startswith("visual.") else _TEXT + name: tensor
        for name, tensor in parts.clip.items()
    }
    return clip | {_HEAD + names[name]: tensor for name, tensor in parts.decoder.items()}


def _sizes(head: Mapping[str, Tensor]) -> DecoderSizes:
    """The sizes of the decoder with these tensors; the number of attention heads follows from no tensor."""
    learner = any(name.startswith(_DESCRIPTOR[True]) for name in head)
    descriptor = head.get(f"{_DESCRIPTOR[learner]}bias")
    width = DecoderSizes.width if descriptor is None or not descriptor.ndim else len(descriptor)
    return DecoderSizes(width, learner=learner, trusty=_TRUSTY in head)


def _names(sizes: DecoderSizes) -> dict[str, str]:
    """The names of the used tensors in a file, without the prefix of the decoder, and their names in `Decoder`."""
    layer = _LAYER[sizes.learner]
    names = {_DESCRIPTOR[sizes.learner] + kind: f"descriptor.{kind}" for kind in _KINDS}
    if sizes.trusty:
        names[_TRUSTY] = "trusty"
    if sizes.learner:
        names |= {layer.format(0) + published: name for published, name in _LEARNER.items()}
    for index in range(sizes.layers):
        parts, module = (_MASK_PARTS, "masks") if index == sizes.layers - 1 else (_LAYER_PARTS, f"layers.{index}")
        names |= {
            f"{layer.format(index)}{published}.{kind}": f"{module}.{name}.{kind}"
            for published, name in parts.items()
            for kind in _KINDS
        }
    return names


def _unused(sizes: DecoderSizes) -> set[str]:
    """The names of the unused tensors in a file, without the prefix of the decoder."""
    parts = {*_LEARNER, *(f"{part}.{kind}" for part in _LAYER_PARTS for kind in _KINDS)}
    layer = _LAYER[sizes.learner]
    built = {layer.format(index) + part for index in range(sizes.layers) for part in parts}
    if sizes.learner:  # TagCLIP's other layers have no self-attention, but the norm of one
        attentions = [part for part in _LEARNER if part.startswith("self_attn")]
        built -= {layer.format(index) + part for index in range(1, sizes.layers) for part in attentions}
    return {_CLASS_WEIGHTS, *built} - _names(sizes).keys()
