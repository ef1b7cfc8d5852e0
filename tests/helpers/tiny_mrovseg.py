"""A MROVSeg of small odd sizes whose weights follow from the names of its parameters, for comparisons by number."""

from dataclasses import replace
from typing import Any

from open_clip.transformer import QuickGELU, VisionTransformer

from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.settings import MROVSegSettings
from tests.helpers.oracle import weights

PATCH, WIDTH, HEADS, BLOCKS, EMBEDDING = 8, 32, 2, 5, 12

SETTINGS = MROVSegSettings(
    "tiny",
    fusion_layers=(0, 1, 2, 4),
    pyramid_layers=(0, 1, 2),
    split=2,
    short_side=64,
    fusion_points=(0, 1, 2, 4),
    queries=5,
    adapter_blocks=4,
    adapter_width=24,
    adapter_heads=3,
    auxiliary_blocks=(3,),
    mask_width=8,
)
"""CLIP's channels are not the adapter's, and four layers are fused of which the third is after the split."""


def tower() -> VisionTransformer:
    """A CLIP image tower for 32 pixels a side, without numbers of its own."""
    return VisionTransformer(
        4 * PATCH, PATCH, WIDTH, BLOCKS, HEADS, mlp_ratio=4.0, output_dim=EMBEDDING, act_layer=QuickGELU
    )


def changed(**values: Any) -> MROVSegSettings:
    """The settings with some changed."""
    return replace(SETTINGS, **values)


def build(**values: Any) -> MROVSeg:
    """The model with some settings changed, in evaluation mode."""
    model = MROVSeg(tower(), changed(**values))
    model.load_state_dict(weights({name: tuple(each.shape) for name, each in model.state_dict().items()}))
    return model.eval().requires_grad_(False)
