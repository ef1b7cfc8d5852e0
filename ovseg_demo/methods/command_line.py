"""The options of methods as flags of a command."""

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from typing import Any

from ovseg_demo.errors import MethodError
from ovseg_demo.methods import registry
from ovseg_demo.methods.options import MethodOptions, Option, distinct

_NAMES = "method_option_names"  # of the namespace: which of its entries are flags of methods


def add_options(parser: ArgumentParser) -> None:
    """Give a parser a flag for every option of every method; a flag that is not typed leaves no trace."""
    group = parser.add_argument_group("options of methods")
    options = distinct(spec.options for spec in registry.REGISTRY.values())
    for name, declarations in options.items():
        first = declarations[0]
        settings: dict[str, Any] = {"dest": name, "default": SUPPRESS, "help": _help(first)}
        if isinstance(first.default, bool):
            settings["action"] = BooleanOptionalAction
        elif first.choices and len(declarations) == 1:
            settings["choices"] = first.choices
        else:
            settings["metavar"] = name.upper()
        group.add_argument(f"--{name.replace('_', '-')}", **settings)
    parser.set_defaults(**{_NAMES: tuple(options)})


def typed_values(typed: Namespace) -> dict[str, Any]:
    """The values of the flags that were typed, by the name of the option."""
    return {name: getattr(typed, name) for name in getattr(typed, _NAMES) if hasattr(typed, name)}


def options_of_each(methods: Sequence[str], values: dict[str, Any]) -> dict[str, MethodOptions]:
    """The options of several methods by method id; each method takes the values of those options that it has.

    Args:
        methods: ids, at least one.
        values: by option name, of any method.

    Raises MethodError for an option that none of the methods has, and for a value that does not fit.
    """
    had = {method: registry.get(method).options.declared() for method in methods}
    for name in values:
        if not any(name in declared for declared in had.values()):
            raise MethodError(registry.refusal(methods, name))
    return {
        method: registry.read_options(method, {name: value for name, value in values.items() if name in declared})
        for method, declared in had.items()
    }


def _help(option: Option) -> str:
    """The option's help, its default and the families of methods that have it."""
    having = [spec for spec in registry.REGISTRY.values() if option.name in spec.options.declared()]
    families = dict.fromkeys(spec.title.split(" · ")[0] for spec in having)
    default = "" if option.default is None else f" (default: {option.default})"
    return f"{', '.join(families)}: {option.help}{default}".replace("%", "%%")
