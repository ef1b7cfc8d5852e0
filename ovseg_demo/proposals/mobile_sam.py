"""MobileSAM (Zhang et al. 2023): TinyViT as the image encoder of Segment Anything.

The encoder is timm's TinyViT under SAM's neck; prompt encoder and mask decoder are segment-anything's own. Weights
keep the names of the published `mobile_sam.pt`; `renamed` maps them onto these modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import timm
import torch
from PIL import Image
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import ConvNorm
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.checkpoints import load_state_dict, load_strict

SIDE = 1024
"""Side in pixels of the square that the encoder sees: the image's longest side is scaled to it."""
GRID = 64
"""Side in tokens of the encoded square."""
TOKEN = SIDE // GRID
"""Side in pixels of the square of what one token stands for."""
LOGITS = 4
"""Mask logits of the decoder along each side of a token."""
CHANNELS = 256
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)

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


@dataclass(frozen=True)
class Encoded:
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
        """Rows and columns of the embedding that the image reaches, and the next where there is one."""
        return tuple(min(GRID, side // TOKEN + 1) for side in self.scaled)


class ImageEncoder(nn.Module):
    """TinyViT-5M at stride 16, then SAM's neck."""

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
        """Normalised pixels (B, 3, 1024, 1024) to features (B, 256, 64, 64)."""
        return self.neck(self.trunk.forward_features(pixels))


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
        return self.prompt_encoder.no_mask_embed.weight.device

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Encoded:
        """Encode an RGB image, uint8 (H, W, 3), of any size and shape."""
        size = image.shape[:2]
        height, width = scaled = tuple(max(1, int(side * SIDE / max(size) + 0.5)) for side in size)
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(resized).to(self.device).permute(2, 0, 1)[None].float()
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (_MEAN, _STD))
        padded = F.pad((pixels - mean) / std, (0, SIDE - width, 0, SIDE - height))
        features = self.image_encoder(padded.contiguous(memory_format=torch.channels_last))
        return Encoded(features, size, scaled)


def renamed(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `mobile_sam.pt` under the names of `MobileSam`, without TinyViT's unused classifier."""
    state = {}
    for name, tensor in published.items():
        if name.startswith(_UNUSED):
            continue
        for old, new in _RENAMES:
            name = name.replace(old, new)
        state[name] = tensor
    return state


def load(checkpoint_id: str = "mobile-sam", device: torch.device | str = "cpu") -> MobileSam:
    """MobileSAM with the weights of a checkpoint in the catalogue, ready for inference in float32.

    Raises CheckpointError when the file is missing or does not fit.
    """
    model = MobileSam()
    load_strict(model, renamed(load_state_dict(checkpoint_id)), checkpoint_id)
    fold_batch_norms(model.image_encoder)
    return model.to(device, memory_format=torch.channels_last)


def fold_batch_norms(module: nn.Module) -> None:
    """Replace each convolution that a batch norm follows by one convolution; the function stays the same."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, child.fuse().requires_grad_(False))
        else:
            fold_batch_norms(child)
