"""The options of a method, declared once as a pydantic model.

From a declaration follow the flags of the command line (`methods.command_line`), the JSON schema and the reading of the
API, the controls of the page (`ui.option_controls`), and the sentences that refuse a value. A method's package has:

    class BlurOptions(MethodOptions):
        radius: Annotated[int, Slider()] = Field(3, ge=1, le=9, title="Radius", description="Pixels that are averaged.")

A field's title is its label; its description is the help shown with it; `Annotated` says how the page shows it. A field
without a control is for the command line and the API alone.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ovseg_demo.errors import MethodError


@dataclass(frozen=True)
class Slider:
    """A slider over the range of a number.

    Attributes:
        step: between two values; of a whole number, at least 1.
        automatic: label of a switch that leaves the value to the method, None; "" where None is no value.
        live: whether a change is shown at once, because only a method's last, fast stage depends on it.
    """

    step: float = 0.01
    automatic: str = ""
    live: bool = False


@dataclass(frozen=True)
class Checkbox:
    """A box to tick, for a truth value.

    Attributes:
        live: as of `Slider`.
    """

    live: bool = False


@dataclass(frozen=True)
class Radio:
    """One of a few choices.

    Attributes:
        nothing: label of the choice that stands for None; shown where None is the default.
        live: as of `Slider`.
    """

    nothing: str = "none"
    live: bool = False


@dataclass(frozen=True)
class SwitchedNumber:
    """A switch with a whole number beside it; switched off, the value is None.

    Attributes:
        label: stands before the number.
        start: the number until a person sets another.
        live: as of `Slider`.
    """

    label: str
    start: int
    live: bool = False


@dataclass(frozen=True)
class SwitchedSlider:
    """A switch with a slider beside it; switched off, the value is the least one of the range.

    Attributes:
        step: between two values.
        label: stands before the slider.
        live: as of `Slider`.
    """

    step: float
    label: str
    live: bool = False


@dataclass(frozen=True)
class WordMarks:
    """A box for every word that is typed; the value is the tuple of ticked words.

    Attributes:
        unmarked: label of a switch that leaves the choice to the method, None.
        unmarked_help: shown while that switch is on; the option's own help is shown while it is off.
        live: as of `Slider`.
    """

    unmarked: str
    unmarked_help: str
    live: bool = False


Control = Slider | Checkbox | Radio | SwitchedNumber | SwitchedSlider | WordMarks


@dataclass(frozen=True)
class Option:
    """One declared option, as the command line and the page need it.

    Attributes:
        name: of the field.
        label: for people.
        help: a sentence or two for people.
        default: its value where nothing is given.
        choices: the allowed values, where these are a few words; else empty.
        whole: whether its values are whole numbers.
        minimum, maximum: limits of a number; None where there is none.
        control: how the page shows it; None where the page does not.
    """

    name: str
    label: str
    help: str
    default: Any
    choices: tuple[str, ...]
    whole: bool
    minimum: float | None
    maximum: float | None
    control: Control | None

    @classmethod
    def of(cls, name: str, field: FieldInfo) -> "Option":
        """The option that a field of a pydantic model declares."""
        limits = {
            kind: getattr(metadata, kind)
            for metadata in field.metadata
            for kind in ("ge", "le")
            if hasattr(metadata, kind)
        }
        return cls(
            name,
            field.title or name.replace("_", " ").capitalize(),
            field.description or "",
            field.default,
            _choices(field.annotation),
            field.annotation is int or int in get_args(field.annotation),
            limits.get("ge"),
            limits.get("le"),
            next((metadata for metadata in field.metadata if isinstance(metadata, Control)), None),
        )


class MethodOptions(BaseModel):
    """Base of every method's options, and the options of a method that has none of its own.

    Values are read leniently (the text "0.5" is a number), so that one reading serves the command line, the API and the
    page. Raises MethodError, one sentence, for an unknown option and for a value that does not fit.

    Attributes:
        withheld: inherited fields that a narrower method does not offer; they keep their defaults.
        thresholds: options below whose value pixels stay unlabelled; with 0 for each, every pixel gets a class.
        unlabelled: a pixel that shows its word with a smaller probability, rather than something that was not asked
            for, stays unlabelled; 0 labels every pixel. The model card has what the default gains and costs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    withheld: ClassVar[frozenset[str]] = frozenset()
    thresholds: ClassVar[frozenset[str]] = frozenset({"unlabelled"})

    unlabelled: Annotated[float, SwitchedSlider(step=0.05, label="below a probability of", live=True)] = Field(
        default=0.4,
        ge=0,
        le=1,
        title="Leave out what none of my words fits",
        description="Pixels that show one of the words with a smaller probability stay unlabelled; 0 labels all.",
    )

    def __init__(self, **values: Any) -> None:
        declared = self.declared()
        if unknown := [name for name in values if name not in declared]:
            has = f"it has {', '.join(declared)}" if declared else "it has none"
            raise MethodError(f"This method has no option '{unknown[0]}'; {has}.")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise MethodError(_sentence(error, declared, values)) from None

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """The options by name, in the order of their declaration."""
        return {name: Option.of(name, field) for name, field in cls.model_fields.items() if name not in cls.withheld}

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of what the API reads."""
        schema = cls.model_json_schema()
        properties = schema.get("properties", {})
        return {**schema, "properties": {n: content for n, content in properties.items() if n not in cls.withheld}}

    def given(self) -> dict[str, Any]:
        """The values of all offered options by name, ready for JSON."""
        values = self.model_dump(mode="json")
        return {name: values[name] for name in self.declared()}

    def changed(self, **values: Any) -> Self:
        """The same options with some other values by name, checked as in a new model. Raises MethodError."""
        return type(self)(**{**{name: getattr(self, name) for name in self.declared()}, **values})


def distinct(models: Iterable[type[MethodOptions]]) -> dict[str, list[Option]]:
    """The different declarations of every option of several methods, by name.

    Args:
        models: the options of each method.
    """
    found: dict[str, list[Option]] = {}
    for model in models:
        for name, option in model.declared().items():
            if option not in found.setdefault(name, []):
                found[name].append(option)
    return found


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal, also inside a union or an Annotated."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(_choices, get_args(annotation))), ())
    return ()


def _sentence(error: ValidationError, declared: Mapping[str, Option], values: Mapping[str, Any]) -> str:
    """What is wrong with the first value that does not fit, in one sentence."""
    first = error.errors()[0]
    option = declared[str(first["loc"][0])]
    got = values[option.name]
    if isinstance(own := first.get("ctx", {}).get("error"), ValueError):
        return f"{option.label} {own}; got {_shown(got)}."
    if option.choices:
        wanted = f"be one of {', '.join(option.choices)}"
    elif isinstance(option.default, bool):
        wanted = "be true or false"
    elif isinstance(option.control, WordMarks):
        wanted = "be words, in a list or parted by commas"
    elif option.minimum is not None and option.maximum is not None:
        wanted = f"lie between {option.minimum:g} and {option.maximum:g}"
    elif option.minimum is not None:
        wanted = f"be a number of at least {option.minimum:g}"
    else:
        wanted = "be something else: " + first["msg"]
    return f"{option.label} must {wanted}; got {_shown(got)}."


def _shown(value: Any, longest: int = 60) -> str:
    """A value as a person typed it, shortened."""
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
