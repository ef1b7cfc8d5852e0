"""MobileSAM (Zhang et al. 2023): TinyViT as the image encoder of Segment Anything.

The encoder is timm's TinyViT under SAM's neck; prompt encoder and mask decoder are segment-anything's own. Weights
files keep the names of the published `mobile_sam.pt`; `rename_tensors` maps them onto these modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import Attention, ConvNorm, MBConv, NormMlp, PatchEmbed, PatchMerging
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.runtime import fused_layers
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise_image, resize_smoothed
from ovseg_demo.weights.loading import load_state_dict, load_strict

SIDE = 1024
"""Side in pixels of the square that the encoder sees: the image's longest side is scaled to it."""
GRID = 64
"""Side in tokens of the encoded square."""
TOKEN = SIDE // GRID
"""Side in pixels of the square that one token covers."""
LOGITS = 4
"""Mask logits of the decoder along each side of a token."""
CHANNELS = 256
_STRIDE = 8
"""Pixels from one cell to the next where TinyViT's first attention begins; all layers before it are convolutions."""
_RECEPTIVE_RADIUS = 15
"""Pixels on either side of a cell's first pixel that these convolutions see."""

_CHECKPOINT = "mobile-sam"
_UNUSED = ("image_encoder.head.", "image_encoder.norm_head.")
_RENAMES = (
    ("image_encoder.", "image_encoder.trunk."),
    ("image_encoder.trunk.neck.", "image_encoder.neck."),
    (".patch_embed.seq.0.", ".patch_embed.conv1."),
    (".patch_embed.seq.2.", ".patch_embed.conv2."),
    *((f".layers.{i}.downsample.", f".stages.{i + 1}.downsample.") for i in range(3)),
    (".trunk.layers.", ".trunk.stages."),
    (".c.", ".conv."),
)


_FOLLOWED_BY_ACTIVATION = {
    PatchEmbed: [("conv1", "act")],
    MBConv: [("conv1", "act1"), ("conv2", "act2")],  # the third comes after the sum with the shortcut
    PatchMerging: [("conv1", "act1"), ("conv2", "act2")],
    NormMlp: [("fc1", "act")],
}
"""For each of timm's blocks the layers that an activation follows directly, and the activation, by their names."""


@dataclass(frozen=True)
class EncodedImage:
    """An image after the encoder.

    Attributes:
        features: float32 (1, 256, 64, 64), the embedding of the padded square.
        size: (H, W) of the image in pixels.
        scaled: (h, w) of the image inside the square of side 1024; max(h, w) is 1024.
    """

    features: Tensor
    size: tuple[int, int]
    scaled: tuple[int, int]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the embedding that cover the image, and one more of each if the grid has them."""
        rows, columns = (min(GRID, side // TOKEN + 1) for side in self.scaled)
        return rows, columns


class ImageEncoder(nn.Module):
    """TinyViT-5M at stride 16, then SAM's neck."""

    trunk: Any  # timm's TinyVit, whose stages and blocks have no static types

    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model("tiny_vit_5m_224", num_classes=0, window_sizes=(7, 7, 14, 7))
        self.trunk.head = nn.Identity()
        self.trunk.stages[3].downsample.conv2.conv.stride = (1, 1)  # SAM's grid is 64 x 64, TinyViT's 32 x 32
        self.neck = nn.Sequential(
            nn.Conv2d(self.trunk.num_features, CHANNELS, 1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, h, w), at most 1024 a side, to features (B, 256, 64, 64) of the padded square."""
        convolutional, *attentive = self.trunk.stages
        repeats = [_repeats(side).to(pixels.device) for side in pixels.shape[2:]]
        missing = [_STRIDE * len(n) - side for n, side in zip(repeats, pixels.shape[2:], strict=True)]
        pixels = F.pad(pixels, (0, missing[1], 0, missing[0])).contiguous(memory_format=torch.channels_last)
        cells = attentive[0].downsample(convolutional(self.trunk.patch_embed(pixels))).permute(0, 2, 3, 1)
        for dim, n in enumerate(repeats, 1):
            cells = cells.repeat_interleave(n, dim)
        x = attentive[0].blocks(cells).permute(0, 3, 1, 2)
        for stage in attentive[1:]:
            x = stage(x)
        return self.neck(x)


def _repeats(side: int) -> Tensor:
    """How often each computed row of cells occurs in the padded square, int64 (n,), for an image of `side` pixels.

    The padding is uniform, so all rows of cells that see neither the image nor the square's far edge are equal: one row
    is computed and repeated. Later stages cannot do the same, because their windows carry information of the image to
    the far edge.
    """
    first_uniform = -(-(side + _RECEPTIVE_RADIUS) // _STRIDE)
    most = SIDE // _STRIDE
    repeats = torch.ones(min(first_uniform + 2, most), dtype=torch.long)  # the last row sees the edge
    if len(repeats) < most:
        repeats[first_uniform] += most - len(repeats)
    return repeats


class Strips(nn.Module):
    """A block of 3 x 3 convolutions that keeps the size of its input; on a CPU it runs on a few rows at a time.

    Inside, the block has four times as many channels as its input: 67 MB for the whole square, but 8 MB for a strip,
    which stays in the processor's last cache.

    Args:
        block: the block, which is kept, not copied.
    """

    ROWS = 32
    """Rows of a strip."""

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if x.device.type != "cpu":
            return self.block(x)
        whole, height = torch.empty_like(x), x.shape[2]
        for start in range(0, height, self.ROWS):
            stop, above = min(start + self.ROWS, height), min(start, 1)
            strip = self.block(x[:, :, start - above : stop + 1])
            whole[:, :, start:stop] = strip[:, :, above : above + stop - start]
        return whole


class WindowAttention(nn.Module):
    """timm's window attention for inference, with its biases in four dimensions, for which torch has a fused kernel.

    Args:
        attention: timm's layer, whose parts are shared.
    """

    bias: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.norm, self.qkv, self.proj = attention.num_heads, attention.norm, attention.qkv, attention.proj
        self.register_buffer(
            "bias", attention.attention_biases.detach()[None, :, attention.get_buffer("attention_bias_idxs")]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) of B windows to the same shape; attention is within each window."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias).transpose(1, 2).flatten(2))


class MobileSam(nn.Module):
    """The three parts of MobileSAM, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder()
        self.prompt_encoder = PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(GRID, GRID),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=CHANNELS,
            transformer=TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=8, mlp_dim=2048),
        )
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.prompt_encoder.no_mask_embed.weight.device

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> EncodedImage:
        """Encode an RGB image, uint8 (H, W, 3), of any size and aspect ratio."""
        size = image.shape[:2]
        height, width = (max(1, int(side * SIDE / max(size) + 0.5)) for side in size)
        pixels = normalise_image(resize_smoothed(image, (height, width)), IMAGENET_MEAN, IMAGENET_STD)
        return EncodedImage(self.image_encoder(pixels.to(self.device)), size, (height, width))


def rename_tensors(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `mobile_sam.pt` under the names of `MobileSam`, without TinyViT's unused classifier."""
    state = {}
    for name, tensor in published.items():
        if name.startswith(_UNUSED):
            continue
        for old, new in _RENAMES:
            name = name.replace(old, new)
        state[name] = tensor
    return state


def load_mobile_sam(device: torch.device | str = "cpu") -> MobileSam:
    """MobileSAM with its published weights, ready for inference in float32.

    Args:
        device: where the model runs.

    Raises:
        CheckpointError: when the file is missing or does not fit.
    """
    model = MobileSam()
    load_strict(model, rename_tensors(load_state_dict(_CHECKPOINT)), _CHECKPOINT)
    fuse_mobile_sam(model.image_encoder)
    return model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  unknown to torch's types


def fuse_mobile_sam(encoder: ImageEncoder) -> None:
    """Fold batch norms, fuse activations and attention, and run blocks in strips, in place.

    What the encoder computes stays the same up to rounding: the features of a photo reach 0.7, and change by 2e-6 at
    most in float32.

    Args:
        encoder: with its weights loaded.
    """
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, Attention):
                setattr(module, name, WindowAttention(child))
    fused_layers.fuse_layers(encoder)
    for module in encoder.modules():
        for name, activation in _FOLLOWED_BY_ACTIVATION.get(type(module), ()):
            layer = getattr(module, name)
            layer = layer.conv if isinstance(layer, ConvNorm) else layer
            layer.activation = getattr(module, activation)
            setattr(module, activation, nn.Identity())
    encoder.trunk.stages[0].blocks = nn.Sequential(*map(Strips, encoder.trunk.stages[0].blocks))
