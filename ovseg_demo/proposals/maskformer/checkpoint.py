"""Weight files that others published: OVSeg's two models, and backbones trained on ImageNet."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.model import MaskFormer, build_maskformer, fuse_maskformer
from ovseg_demo.proposals.maskformer.resnet import ResNet
from ovseg_demo.weights.loading import check_state_dict, load_strict, tensor_table

_MASKFORMER_PREFIXES = ("backbone.", "sem_seg_head.")
CLIP_PREFIX = "clip_adapter.clip_model."
_MASK_PROMPTS = "visual.mask_embedding"
NON_OBJECT = "clip_adapter.non_object_embedding"
UNUSED = {
    "clip_adapter.pixel_mean": (1, 3, 1, 1),
    "clip_adapter.pixel_std": (1, 3, 1, 1),
    "criterion.empty_weight": (172,),
}
"""Shapes of the tensors that inference does not need, by name: normalisation constants that our code has of its own,
and the weights of COCO-Stuff's 171 classes and of "no object" in the training loss."""


@dataclass(frozen=True)
class ReleasedModel:
    """The parts of one of OVSeg's two files (`ovseg_R101c_vitB16_ft_mpt.pth`, `ovseg_swinbase_vitL14_ft_mpt.pth`).

    Attributes:
        backbone: "r101c" or "swinb".
        maskformer: the state dict of `build_maskformer(backbone, D)`.
        clip: the state dict of the CLIP under OpenAI's names, and "visual.mask_embedding", the mask prompts. Only
            loading it shows whether tensors are missing, unexpected or misshapen.
        non_object: (1, D), the learned text embedding of "no object", not normalised.
    """

    backbone: str
    maskformer: dict[str, Tensor]
    clip: dict[str, Tensor]
    non_object: Tensor


def split_checkpoint(published: Mapping, source: str = "This file") -> ReleasedModel:
    """Split a released OVSeg file into its parts and account for every tensor.

    Args:
        published: the content of the file; the tensors lie in it directly, or under "model".
        source: the file's name, for messages.

    Raises CheckpointError that names the missing, unexpected and misshapen tensors.
    """
    state = tensor_table(published, source)
    clip = {name.removeprefix(CLIP_PREFIX): tensor for name, tensor in state.items() if name.startswith(CLIP_PREFIX)}
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(CLIP_PREFIX)}
    if _MASK_PROMPTS not in clip or NON_OBJECT not in rest:
        raise CheckpointError(f"{source} is no OVSeg model: it lacks {CLIP_PREFIX}{_MASK_PROMPTS} or {NON_OBJECT}.")
    backbone = "r101c" if "backbone.stem.conv1.weight" in rest else "swinb"
    text_width = rest[NON_OBJECT].shape[-1]
    with torch.device("meta"):
        wanted = build_maskformer(backbone, text_width).state_dict()
        wanted |= {name: torch.empty(shape) for name, shape in (UNUSED | {NON_OBJECT: (1, text_width)}).items()}
    check_state_dict(wanted, rest, f"{source} is no released OVSeg model")
    maskformer = {name: tensor for name, tensor in rest.items() if name.startswith(_MASKFORMER_PREFIXES)}
    return ReleasedModel(backbone, maskformer, clip, rest[NON_OBJECT])


def load_maskformer(released: ReleasedModel, device: torch.device | str = "cpu") -> MaskFormer:
    """The MaskFormer of a released file, ready for inference in float32.

    Args:
        released: the parts of the file.
        device: where the model runs.

    Raises CheckpointError when the backbone has other tensors than the released one.
    """
    model = build_maskformer(released.backbone, released.non_object.shape[-1])
    load_strict(model, released.maskformer, "The released MaskFormer")
    model.eval().requires_grad_(False)
    fuse_maskformer(model)
    model.backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  unknown to torch's types
    return model.to(device)


def load_backbone(model: MaskFormer, published: Mapping, source: str = "This file") -> None:
    """Initialise the backbone of a model, in place, with weights trained on ImageNet.

    Args:
        model: its backbone is a ResNet or a Swin transformer.
        published: the content of a file, whose tensors lie in it directly, or under "model". For a ResNet this is
            Detectron2's `R-103.pkl`, its arrays made tensors. For a Swin transformer it is the Swin release's
            `swin_base_patch4_window12_384_22k.pth`; the norms of the backbone's four outputs, which that file lacks,
            stay as they are. Tensors of the classifier and counters of batches are left out.
        source: name of the file, for messages.

    Raises CheckpointError that names the missing, unexpected and misshapen tensors.
    """
    state = tensor_table(published, source)
    if isinstance(model.backbone, ResNet):
        unused_prefixes, unused_suffix, absent = ("stem.fc.",), ".num_batches_tracked", ()
    else:
        unused_prefixes, unused_suffix = ("head.", "norm."), ".attn_mask"
        absent = ("norm0.", "norm1.", "norm2.", "norm3.")
    unchanged = {name: tensor for name, tensor in model.backbone.state_dict().items() if name.startswith(absent)}
    used = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(unused_prefixes) and not name.endswith(unused_suffix)
    }
    load_strict(model.backbone, unchanged | used, source)
