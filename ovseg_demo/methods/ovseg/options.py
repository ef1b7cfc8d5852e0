"""The options of OVSeg."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ovseg_demo.methods.options import MethodOptions, Radio, Slider


def _auto(value: Any) -> Any:
    """ "auto" stands for None. Raises ValueError for text that is neither a number nor "auto"."""
    if not isinstance(value, str):
        return value
    try:
        return None if value == "auto" else float(value)
    except ValueError:
        raise ValueError("must be a number between 0 and 1, or auto") from None


class OVSegOptions(MethodOptions):
    """The options that all methods of OVSeg share.

    Attributes:
        granularity: 0 to 1, see `fusion.select_masks`; None chooses a value for the photo and its words, see
            `granularity.choose_granularity`.
    """

    granularity: Annotated[
        float | None, BeforeValidator(_auto), Slider(step=0.01, automatic="Automatic", live=True)
    ] = Field(
        default=0.8,
        ge=0,
        le=1,
        title="Granularity",
        description="At 1 each class keeps its best mask only; lower keeps more masks.",
    )


class SamOptions(OVSegOptions):
    """Options of OVSeg with MobileSAM's mask proposals.

    Attributes:
        proposals: the search setting of MobileSAM, a name in `mask_generator.SETTINGS`.
    """

    proposals: Annotated[Literal["fast", "balanced", "thorough"], Radio()] = Field(
        default="balanced", title="Mask search", description="How many points of the photo are asked for masks."
    )


class MaskFormerOptions(OVSegOptions):
    """Options of OVSeg as published, with MaskFormer's mask proposals.

    Attributes:
        ensemble: None names masks by CLIP alone, as OVSeg's demo does. From 0 to 1, OVSeg's evaluation instead: soft
            masks, and MaskFormer's own class probabilities A with CLIP's C as A^(1 - ensemble) C^ensemble (Liang et al.
            2023, section 4.1).
    """

    ensemble: float | None = Field(
        default=None,
        ge=0,
        le=1,
        title="Ensemble",
        description="Name masks as OVSeg's evaluation does, with this weight of CLIP; without it, as its demo does.",
    )
