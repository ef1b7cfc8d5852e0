"""The options of MROVSeg."""

from typing import Annotated

from pydantic import Field

from ovseg_demo.methods.options import MethodOptions, Slider

LARGEST_SHORT_SIDE = 1280
"""Twice the published one; time and memory grow with the pixels that are read."""


class MROVSegOptions(MethodOptions):
    """Options of MROVSeg on CLIP ViT-B/16.

    Attributes:
        short_side: pixels of the photo's shorter side as it is read. Slices are half as large.
    """

    short_side: Annotated[int, Slider(step=32)] = Field(
        640,
        ge=320,
        le=LARGEST_SHORT_SIDE,
        title="Short side",
        description="Pixels of the photo's shorter side as it is read, in slices of half of it: more for small things, "
        "but slower.",
    )


class MROVSegLargeOptions(MROVSegOptions):
    """Options of MROVSeg on CLIP ViT-L/14, whose patches of 14 pixels do not fill slices of 320."""

    short_side: Annotated[int, Slider(step=28)] = Field(
        672,
        ge=336,
        le=LARGEST_SHORT_SIDE,
        title="Short side",
        description="Pixels of the photo's shorter side as it is read, in slices of half of it: more for small things, "
        "but slower.",
    )
