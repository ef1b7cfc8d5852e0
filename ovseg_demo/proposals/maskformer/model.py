"""MaskFormer (Cheng et al. 2021) for open vocabularies, as OVSeg (Liang et al. 2023) trains it: class-agnostic masks,
each with an embedding in CLIP's text space.

State-dict names are those of OVSeg's released files.
"""

from typing import Any

from timm.layers.mlp import Mlp
from torch import Tensor, nn

from ovseg_demo.proposals.maskformer.decoder import LayerPredictions, TransformerPredictor
from ovseg_demo.proposals.maskformer.layers import ConvNorm
from ovseg_demo.proposals.maskformer.pixel_decoder import PixelDecoder
from ovseg_demo.proposals.maskformer.resnet import ResNet
from ovseg_demo.proposals.maskformer.swin import Swin
from ovseg_demo.runtime import fused_layers

BACKBONES = {"r101c": ResNet, "swinb": Swin}
"""Backbones of the released models; called without arguments they have the released sizes."""

STRIDE = 32
"""Stride of the coarsest feature map: both sides of an image must be multiples of it."""


class MaskFormer(nn.Module):
    """A backbone, a pixel decoder and a transformer decoder.

    Args:
        backbone: computes four feature maps of strides 4, 8, 16 and 32; its `channels` are those of the maps.
        text_width: D, dimensions of CLIP's text space.
        width: channels of the pixel decoder and of the queries, a multiple of 32.
        **sizes: further keyword arguments of `TransformerPredictor`.
    """

    def __init__(self, backbone: ResNet | Swin, text_width: int, *, width: int = 256, **sizes: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = nn.ModuleDict(
            {
                "pixel_decoder": PixelDecoder(backbone.channels, width),
                "predictor": TransformerPredictor(backbone.channels[-1], text_width, width=width, **sizes),
            }
        )

    def forward(self, images: Tensor, *, every_layer: bool = True) -> list[LayerPredictions]:
        """Predictions of each decoder layer; those of the last layer are the result.

        Args:
            images: float32 (B, 3, H, W), RGB, normalised with the mean and the standard deviation of ImageNet; H
                and W are multiples of STRIDE.
            every_layer: False leaves out all predictions but those of the last layer.
        """
        maps = self.backbone(images)
        mask_features = self.sem_seg_head["pixel_decoder"](maps)
        return self.sem_seg_head["predictor"](maps[-1], mask_features, every_layer=every_layer)


def build_maskformer(backbone: str, text_width: int) -> MaskFormer:
    """A released architecture with fresh weights.

    Args:
        backbone: "r101c" or "swinb".
        text_width: dimensions of CLIP's text space: 512 for ViT-B/16, 768 for ViT-L/14.
    """
    return MaskFormer(BACKBONES[backbone](), text_width)


def fuse_maskformer(model: MaskFormer) -> None:
    """Fold batch norms and fuse linear layers with their activations, in place, for inference in float32.

    What the model computes stays the same, but the names of its tensors change.

    Args:
        model: with its weights loaded.
    """
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    fused_layers.fuse_layers(model.backbone)
    for module in model.backbone.modules():
        if isinstance(module, Mlp):
            module.fc1.activation, module.act = module.act, nn.Identity()
