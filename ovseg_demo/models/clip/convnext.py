"""A CLIP whose image tower is a ConvNeXt: what it knows of every place of a photo, coarse and fine.

SED (Xie et al., CVPR 2024, section 3.1) reads the tower of open_clip at all its resolutions: the head that was trained
for whole images is applied at each place of the last stage, and the stages before it tell where things end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import open_clip
import torch
from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models import text_cache
from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES
from ovseg_demo.models.clip.text import encode_shared_prefixes
from ovseg_demo.models.clip.weights import load_clip_weights
from ovseg_demo.runtime.fused_layers import fused_linear
from ovseg_demo.vocabulary import verbatim_text

_REGULARISED = {
    "convnext_base_w_320": {"timm_drop": 0.0, "timm_drop_path": None},
    "convnext_large_d_320": {"timm_drop": 0.1, "timm_drop_path": 0.1},
}
"""Dropout and stochastic depth in training as SED was trained; open_clip has changed its own since."""

_HIDDEN_BYTES = 4 * 2**20  # of what a block widens at once: to stay in the processor's cache


@dataclass(frozen=True)
class HierarchicalFeatures:
    """What a hierarchical CLIP knows of B images of (H, W) pixels, h = H / 32 and w = W / 32.

    Attributes:
        dense: (B, D, h, w) in the space of the texts, not normalised.
        skips: (B, C, 2h, 2w), (B, C', 4h, 4w), (B, C'', 8h, 8w): the tower's stages res4, res3, res2.
    """

    dense: Tensor
    skips: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (self.dense, *self.skips))


def build_convnext_clip(architecture: str, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with the weights of `state`, float32, in evaluation mode.

    Args:
        architecture: open_clip model name of a ConvNeXt.
        state: tensors of any precision under open_clip's names.
        source: where they are from, for the message.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    config = open_clip.get_model_config(architecture)
    config["vision_cfg"] |= _REGULARISED.get(architecture, {})
    with torch.device("meta"):  # no time for random numbers that are overwritten
        clip = open_clip.CLIP(**config)
    return load_clip_weights(clip, state, source)


def hierarchical_features(visual: TimmModel, pixels: Tensor) -> HierarchicalFeatures:
    """What the image tower of a ConvNeXt CLIP knows of normalised images (B, 3, H, W), H and W multiples of 32.

    Differentiable; in training mode with the dropout and stochastic depth of the tower.
    """
    x, stages = visual.trunk.stem(pixels), []
    for stage in visual.trunk.stages:
        x = stage(x)
        stages.append(x)
    places = visual.trunk.head.norm(x).movedim(1, -1)
    return HierarchicalFeatures(visual.head(places).movedim(-1, 1), tuple(stages[2::-1]))


@torch.no_grad()
def embed_words(clip: open_clip.CLIP, words: Sequence[str]) -> Tensor:
    """Unit vectors, float32 (len(words), P, D), of words, verbatim, in IMAGENET_TEMPLATES; at least one word."""
    texts = [template.format(verbatim_text(word)) for word in words for template in IMAGENET_TEMPLATES]
    tokens = open_clip.tokenize(texts).to(clip.text_projection.device)
    return F.normalize(encode_shared_prefixes(clip, tokens), dim=-1).unflatten(0, (-1, len(IMAGENET_TEMPLATES)))


class HierarchicalClip:
    """A ConvNeXt CLIP for inference: photos to features of every place, words to a unit vector for each prompt.

    Args:
        architecture: open_clip model name, "convnext_base_w_320" or "convnext_large_d_320".
        state: tensors under open_clip's names.
        name: names the weights: what was once read in words is kept on disk under it.
        device: where it runs.
        source: where the weights are from, for messages.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. Words are always read in float32.

    Raises CheckpointError when the weights do not fit.
    """

    prompts = len(IMAGENET_TEMPLATES)

    def __init__(
        self,
        architecture: str,
        state: Mapping[str, Tensor],
        name: str,
        device: str | torch.device = "cpu",
        *,
        source: str,
        precision: Precision | None = None,
    ) -> None:
        self.name = f"{name} | imagenet"
        self._device = torch.device(device)
        self._model = build_convnext_clip(architecture, state, source).to(self._device)
        optimise(self._model.transformer, "float32")
        replace_convnext_blocks(self._model.visual, precision or native_precision(self._device))
        self._store = text_cache.TextEmbeddingCache(self.name, IMAGENET_TEMPLATES)

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), P, D) of the words, verbatim, in each prompt; at least one word."""
        return self._store.completed(words, lambda missing: embed_words(self._model, missing)).to(self._device)

    @torch.inference_mode()
    def read(self, pixels: Tensor) -> HierarchicalFeatures:
        """What is known of normalised images (B, 3, H, W), H and W multiples of 32; float32."""
        return hierarchical_features(self._model.visual, pixels.to(self._device, memory_format=torch.channels_last))


class OptimisedConvNextBlock(nn.Module):
    """A ConvNeXt block of timm for inference, its two linear layers in `precision`.

    The layer's gain is multiplied into the second of them. What accumulates stays in float32: the residual stream, the
    depthwise convolution and the norm, which together are a tenth of the work.
    """

    def __init__(self, block: ConvNeXtBlock, precision: Precision) -> None:
        super().__init__()
        self._dtype = getattr(torch, precision)
        self.depthwise, self.norm = block.conv_dw, block.norm
        wide, narrow, gain = block.mlp.fc1, block.mlp.fc2, block.gamma
        self._rows = max(1, _HIDDEN_BYTES // (wide.out_features * self._dtype.itemsize))
        self.widen = fused_linear(wide.weight, wide.bias, self._dtype, block.mlp.act)
        self.narrow = fused_linear(narrow.weight * gain[:, None], narrow.bias * gain, self._dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), float32, with its channels last in memory, to the same."""
        mixed = self.norm(self.depthwise(x).movedim(1, -1)).to(self._dtype)
        pieces = mixed.flatten(0, 2).split(self._rows)
        added = torch.cat([self.narrow(self.widen(piece)) for piece in pieces])
        return x + added.view(mixed.shape).movedim(-1, 1)


def replace_convnext_blocks(visual: TimmModel, precision: Precision) -> None:
    """Replace timm's blocks in place, so that no more than one is in memory twice."""
    for stage in visual.trunk.stages:
        for index, block in enumerate(stage.blocks):
            stage.blocks[index] = OptimisedConvNextBlock(block, precision)
