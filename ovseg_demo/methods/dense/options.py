"""The options of dense CLIP."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ovseg_demo.methods.dense.strategies import Strategy
from ovseg_demo.methods.options import Checkbox, MethodOptions, Radio, Slider, SwitchedNumber

PUBLISHED_SHORT_SIDE, PUBLISHED_STRIDE = 336, 112
"""In pixels, for all of NACLIP's data sets but PASCAL VOC, which has no windows, and Cityscapes, with a side of 560."""


def _stride(value: Any) -> Any:
    """ "none" stands for None, the photo as one window."""
    return None if value == "none" else value


class DenseClipOptions(MethodOptions):
    """Options of dense CLIP; the defaults are those of NACLIP's published results on most data sets.

    Attributes:
        strategy: the attention of CLIP's last block, see `Strategy`.
        pamr: whether scores are refined by the colours of the photo.
        masks: whether all pixels of a mask proposal share its mean probabilities.
        short_side: pixels of the photo's shorter side where CLIP reads it; published: 336, and 560 for Cityscapes.
        stride: pixels from one window of 224 pixels to the next; None reads the photo as one window, as published for
            PASCAL VOC.
    """

    strategy: Annotated[Strategy, Radio()] = Field(
        "naclip",
        title="Last block",
        description="How patches gather in CLIP's last block: by NACLIP, SCLIP or keys with keys (kk), as MaskCLIP's "
        "values alone, or as in CLIP (vanilla).",
    )
    pamr: Annotated[bool, Checkbox()] = Field(
        True, title="Refine outlines (PAMR)", description="Labels follow the colours of the photo, as published."
    )
    masks: Annotated[bool, Checkbox()] = Field(
        False, title="Vote inside masks", description="Each mask of MobileSAM gets its mean, which sharpens outlines."
    )
    short_side: Annotated[int, Slider(step=16)] = Field(
        PUBLISHED_SHORT_SIDE,
        ge=112,
        le=896,
        title="Short side",
        description="Pixels of the photo's shorter side where CLIP reads it: more for small things, but slower.",
    )
    stride: Annotated[
        int | None,
        BeforeValidator(_stride, json_schema_input_type=int | str | None),
        SwitchedNumber("pixels from one to the next", PUBLISHED_STRIDE),
    ] = Field(
        PUBLISHED_STRIDE,
        ge=56,
        le=224,
        title="Windows",
        description="Read the photo in windows of 224 pixels, so many from one to the next; none reads it whole.",
    )
