"""The options of TagCLIP and ZegCLIP."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ovseg_demo.methods.options import Checkbox, MethodOptions, WordMarks
from ovseg_demo.vocabulary import parse_words


def _words(value: Any) -> Any:
    """The words of a text that is separated as a vocabulary is; it may be empty. Other values stay as they are."""
    return parse_words(value) if isinstance(value, str) else value


class TagCLIPOptions(MethodOptions):
    """Options of TagCLIP.

    Attributes:
        seen: words that count as seen in training; a class counts as seen when one of its words does. With None the
            words that the model was trained with count as seen.
        trusty: whether the scores are weighted by the trusty map.
        recipe: "code" subtracts 0.1 from the mask probabilities of seen classes where TagCLIP's published code does;
            "paper" does not, as the paper does not mention this penalty.
    """

    seen: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_words, json_schema_input_type=str | list[str] | None),
        WordMarks("As trained", "Words that the model was trained with count as seen, all others as new."),
    ] = Field(
        default=None,
        title="Seen words",
        description="These words count as seen in training, all others as new.",
    )
    trusty: Annotated[bool, Checkbox()] = Field(
        default=True,
        title="Trusty weighting",
        description="Where a region looks new to the model, new words gain and seen ones lose.",
    )
    recipe: Literal["code", "paper"] = Field(
        default="code", title="Recipe", description="Whether 0.1 is taken off seen words, as the published code does."
    )


class ZegCLIPOptions(TagCLIPOptions):
    """Options of ZegCLIP, which has no trusty map."""

    withheld = frozenset({"trusty"})


class SelfTrainedOptions(TagCLIPOptions):
    """ZegCLIP after self-training or full supervision treats seen and unseen words alike."""

    withheld = frozenset({"seen", "trusty", "recipe"})


class TagCLIPMiniOptions(TagCLIPOptions):
    """Options of TagCLIP on the mini model, which takes nothing off seen words."""

    withheld = frozenset({"recipe"})
