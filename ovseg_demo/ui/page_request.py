"""What the controls of the page say, kept with a result to tell whether the result is still theirs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ovseg_demo import vocabulary
from ovseg_demo.errors import UserError
from ovseg_demo.methods import registry
from ovseg_demo.methods.options import MethodOptions, Option, distinct


@dataclass(frozen=True)
class PageRequest:
    """What a person has set on the page.

    Attributes:
        photo: path of the uploaded file; None where there is none.
        words: the text of the vocabulary box.
        methods: ids; one, or those of a comparison.
        values: what the control of each option says, by the control's key, see `option_keys`; a control that is not
            there leaves its option at the default.
    """

    photo: str | None
    words: str
    methods: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)

    def options(self, method: str) -> MethodOptions:
        """The options of one method. Raises MethodError for a value that does not fit."""
        keys = option_keys(method)
        return registry.read_options(
            method, {name: self.values[key] for name, key in keys.items() if key in self.values}
        )

    def change(self, now: "PageRequest") -> str:
        """The weightiest difference of another request that a result shows.

        Args:
            now: what the page says now.

        Returns:
            "photo", "words", "settings", or "" where the result would be the same.
        """
        if now.photo != self.photo:
            return "photo"
        if now.words.strip() != self.words.strip():
            return "words"
        if set(now.methods) != set(self.methods):
            return "settings"
        used = {key for method in self.methods for key in option_keys(method).values()}
        differ = any(now.values.get(key) != self.values.get(key) for key in used)
        return "settings" if differ else ""

    def with_values(self, values: Mapping[str, Any]) -> "PageRequest":
        """The same request with other values of some controls."""
        return replace(self, values={**self.values, **values})


def shown_options() -> dict[str, Option]:
    """The options that the page has a control for, by a key of the control.

    The key is the option's name. Where methods declare different options of the same name, each declaration has a
    control of its own; the second one's key is NAME-2.
    """
    found = {}
    for name, declarations in distinct(spec.options for spec in registry.REGISTRY.values()).items():
        for number, option in enumerate(declarations, 1):
            if option.control is not None:
                found[name if number == 1 else f"{name}-{number}"] = option
    return found


def option_keys(method: str) -> dict[str, str]:
    """The keys of the controls of one method's options, by the options' names."""
    declared = registry.get(method).options.declared().values()
    return {option.name: key for key, option in shown_options().items() if option in declared}


def control_keys(methods: Iterable[str]) -> set[str]:
    """The keys of the controls that change something for at least one of the methods."""
    return {key for method in methods for key in option_keys(method).values()}


def class_names(words: str) -> tuple[str, ...]:
    """The classes that a vocabulary box holds; none while its text cannot be used."""
    try:
        return vocabulary.parse(words).names
    except UserError:
        return ()
