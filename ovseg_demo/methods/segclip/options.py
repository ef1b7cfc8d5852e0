"""The options of SegCLIP."""

from typing import Annotated, Literal

from pydantic import Field

from ovseg_demo.methods.options import Checkbox, MethodOptions, Slider

CONTEXT_THRESHOLD = 0.25
"""The background threshold that was published for PASCAL Context, by paper and code."""

_RECIPES = "Each pixel gets one region, as in the released code, or class scores are interpolated, as in the paper."


class RegionOptions(MethodOptions):
    """Options of SegCLIP on any encoder; the defaults are those of the released code on PASCAL Context.

    What none of the words fits is left out by the published background threshold.

    Attributes:
        background: pixels where no class reaches this score are left unlabelled. With the recipe "code" this never
            leaves a whole window unlabelled: its best region counts.
        image_prior: whether only the five classes that fit a whole window best can be found in it, their scores being
            multiplied by the probability among them. Released code: on; paper: off.
        recipe: what is interpolated from patches to pixels. "code": the probabilities of regions, after which each
            pixel has the scores of one region. "paper": the class scores of patches (section 2.5).
    """

    withheld = frozenset({"unlabelled"})
    thresholds = frozenset({"background"})

    background: Annotated[float, Slider(live=True)] = Field(
        CONTEXT_THRESHOLD,
        ge=0,
        le=1,
        title="Background threshold",
        description="Where no word scores more, pixels stay unlabelled. Published: 0.75 (paper) or 0.80 (code) for "
        "VOC, 0.25 for Context, 0.65 for COCO.",
    )
    image_prior: Annotated[bool, Checkbox(live=True)] = Field(
        True,
        title="Image prior",
        description="Only the five words that fit a window best are looked for in it: in the code, not in the paper.",
    )
    recipe: Literal["code", "paper"] = Field(
        "code",
        title="Recipe",
        description=_RECIPES,
    )


class SegCLIPOptions(RegionOptions):
    """Options of SegCLIP, which reads a photo in windows.

    Attributes:
        overlap: of neighbouring windows, as a share of their side; published: none.
    """

    overlap: Annotated[float, Slider(step=0.25)] = Field(
        0.0,
        ge=0,
        le=0.75,
        title="Overlap of windows",
        description="Neighbouring windows share this part of their side, for smoother maps; published: 0.",
    )


class SegCLIPMiniOptions(RegionOptions):
    """Options of SegCLIP on the mini model, to which a photo is one window."""

    background: Annotated[float, Slider(live=True)] = Field(
        0.0, ge=0, le=1, title="Background threshold", description="Where no word scores more, pixels stay unlabelled."
    )
    recipe: Literal["code", "paper"] = Field(
        "paper",
        title="Recipe",
        description=_RECIPES,
    )
