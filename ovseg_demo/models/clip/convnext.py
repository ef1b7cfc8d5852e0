"""A CLIP whose image tower is a ConvNeXt, read densely at all its resolutions.

SED (Xie et al., CVPR 2024, section 3.1): the head that was trained for whole images is applied at each position of the
last stage, which gives dense features in the space of the texts; the earlier stages give features of finer resolution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import open_clip
import torch
from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import Tensor, nn

from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES
from ovseg_demo.models.clip.text import CachedWordEmbeddings
from ovseg_demo.models.clip.weights import build_empty_clip, load_clip_weights
from ovseg_demo.runtime.fused_layers import fused_linear

_REGULARISED = {
    "convnext_base_w_320": {"timm_drop": 0.0, "timm_drop_path": None},
    "convnext_large_d_320": {"timm_drop": 0.1, "timm_drop_path": 0.1},
}
"""Dropout and stochastic depth in training as SED was trained; open_clip has changed its own since."""

_HIDDEN_BYTES = 4 * 2**20  # of the MLP's hidden features computed at once, so that they stay in the processor's cache


@dataclass(frozen=True)
class HierarchicalFeatures:
    """Features of B images of (H, W) pixels, with h = H / 32 and w = W / 32.

    Attributes:
        dense: dense features (B, D, h, w) in the space of the texts, not normalised.
        skips: outputs of the tower's stages res4, res3 and res2: (B, C, 2h, 2w), (B, C', 4h, 4w), (B, C'', 8h, 8w).
    """

    dense: Tensor
    skips: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all features in memory."""
        return sum(features.nbytes for features in (self.dense, *self.skips))


def build_convnext_clip(architecture: str, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with the weights of `state`, float32, in evaluation mode.

    Args:
        architecture: open_clip model name of a ConvNeXt.
        state: tensors of any precision under open_clip's names.
        source: where the tensors are from, for the message.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    clip = build_empty_clip(architecture, **_REGULARISED.get(architecture, {}))
    return load_clip_weights(clip, state, source)


def hierarchical_features(visual: TimmModel, pixels: Tensor) -> HierarchicalFeatures:
    """Features of images by the image tower of a ConvNeXt CLIP.

    Differentiable; in training mode with the dropout and stochastic depth of the tower.

    Args:
        visual: the image tower.
        pixels: normalised, float32 (B, 3, H, W), H and W multiples of 32.
    """
    trunk, stages = cast(ConvNeXt, visual.trunk), []
    x = trunk.stem(pixels)
    for stage in trunk.stages.children():
        x = stage(x)
        stages.append(x)
    normalised = trunk.head.get_submodule("norm")(x).movedim(1, -1)
    return HierarchicalFeatures(visual.head(normalised).movedim(-1, 1), tuple(stages[2::-1]))


class HierarchicalClip:
    """A ConvNeXt CLIP for inference: from photos to dense features, from words to a text embedding for each prompt.

    Args:
        architecture: open_clip model name, "convnext_base_w_320" or "convnext_large_d_320".
        state: tensors under open_clip's names.
        name: names the weights; text embeddings are cached on disk under it.
        device: torch device on which the model runs.
        source: where the weights are from, for messages.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. The text tower always computes in float32.

    Raises CheckpointError when the weights do not fit.
    """

    prompts = len(IMAGENET_TEMPLATES)
    """Number of prompts P of each word."""

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
        replace_convnext_blocks(cast(TimmModel, self._model.visual), precision or native_precision(self._device))
        self._word_embeddings = CachedWordEmbeddings(self._model, self.name, IMAGENET_TEMPLATES)

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, unit vectors (len(words), P, D), of at least one word in each of the P prompts."""
        return self._word_embeddings(words)

    @torch.inference_mode()
    def embed_images(self, pixels: Tensor) -> HierarchicalFeatures:
        """Features, float32, of normalised images (B, 3, H, W), H and W multiples of 32."""
        visual = cast(TimmModel, self._model.visual)
        return hierarchical_features(visual, pixels.to(self._device, memory_format=torch.channels_last))


class OptimisedConvNextBlock(nn.Module):
    """A ConvNeXt block of timm for inference, the two linear layers of its MLP in `precision`.

    The layer scale is multiplied into the second linear layer. The residual stream, the depthwise convolution and the
    norm stay in float32; together they are a tenth of the work.

    Args:
        block: the original, with a layer scale, as the released models have.
        precision: of the linear layers.
    """

    def __init__(self, block: ConvNeXtBlock, precision: Precision) -> None:
        super().__init__()
        self._dtype = getattr(torch, precision)
        self.depthwise, self.norm = block.conv_dw, block.norm
        fc1, fc2, scale = block.mlp.fc1, block.mlp.fc2, block.gamma
        if scale is None or fc2.bias is None:
            raise ValueError("The block has no layer scale or no bias.")
        self._rows = max(1, _HIDDEN_BYTES // (fc1.out_features * self._dtype.itemsize))
        self.fc1 = fused_linear(fc1.weight, fc1.bias, self._dtype, block.mlp.act)
        self.fc2 = fused_linear(fc2.weight * scale[:, None], fc2.bias * scale, self._dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Features after the block, (B, C, h, w), of features `x`, float32 (B, C, h, w), both channels-last."""
        normalised = self.norm(self.depthwise(x).movedim(1, -1)).to(self._dtype)
        rows = normalised.flatten(0, 2).split(self._rows)
        added = torch.cat([self.fc2(self.fc1(chunk)) for chunk in rows])
        return x + added.view(normalised.shape).movedim(-1, 1)


def replace_convnext_blocks(visual: TimmModel, precision: Precision) -> None:
    """Replace timm's blocks by `OptimisedConvNextBlock`s, in place, so that no more than one is in memory twice.

    Args:
        visual: the image tower of a ConvNeXt CLIP.
        precision: of the blocks' linear layers.
    """
    for stage in cast(ConvNeXt, visual.trunk).stages.children():
        blocks = cast(nn.Sequential, stage.get_submodule("blocks"))
        for index, block in enumerate(blocks):
            blocks[index] = OptimisedConvNextBlock(cast(ConvNeXtBlock, block), precision)
