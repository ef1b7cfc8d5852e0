"""The options of SED."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ovseg_demo.methods.options import MethodOptions, SwitchedNumber

_STAGES = 3
"""Stages of the decoder, before each of which classes can be rejected."""

_PUBLISHED_K = 8


def _k_of_each_stage(value: Any) -> Any:
    """The k of each stage, from one number for all stages or three, also as text with commas; None stays None.

    Raises ValueError for anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = value.split(",")
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    try:
        whole = [int(number) for number in numbers if not isinstance(number, bool) and float(number) == int(number)]
    except (TypeError, ValueError, OverflowError):
        whole = []
    if len(whole) != len(numbers) or min(whole, default=0) < 1 or len(whole) not in (1, _STAGES):
        raise ValueError("takes one whole number of at least 1, or three, one for each stage of the decoder")
    return tuple(whole * _STAGES if len(whole) == 1 else whole)


class SEDOptions(MethodOptions):
    """Options of SED.

    Attributes:
        rejection: the k of each of the decoder's three stages for early rejection (Xie et al. 2024, section 3.3):
            before a stage, classes are rejected that are among the k best at no position. None keeps all classes.
        keep_aspect: whether the photo keeps its aspect ratio; published, SED sees every photo squashed to a square.
    """

    rejection: Annotated[
        tuple[int, int, int] | None,
        BeforeValidator(_k_of_each_stage, json_schema_input_type=int | tuple[int, int, int] | str | None),
        SwitchedNumber("keep each place's best", _PUBLISHED_K),
    ] = Field(
        default=None,
        title="Early rejection",
        description="Before each stage of the decoder, only the words stay that are among the k best somewhere in the "
        "photo: one k, or three parted by commas (published: 8).",
    )
    keep_aspect: bool = Field(
        default=False, title="Keep the aspect ratio", description="Keep the photo's aspect ratio instead of a square."
    )


class SEDMiniOptions(SEDOptions):
    """Options of SED on the mini model, which always keeps the aspect ratio."""

    withheld = frozenset({"keep_aspect"})
