"""The options of methods as flags of a command."""

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from typing import Any

from ovseg_demo.errors import MethodError
from ovseg_demo.methods import registry
from ovseg_demo.methods.options import MethodOptions, Option, distinct

_NAMES = "method_option_names"
"""The entry of the parsed arguments that says which other entries are options of methods."""


def add_options(parser: ArgumentParser) -> None:
    """Give a parser a flag for every option of every method.

    A flag that is not given leaves no trace in the parsed arguments. Methods that declare an option of the same name
    differently share its flag; the method reads the value.

    Args:
        parser: of a command that runs methods.
    """
    group = parser.add_argument_group("options of methods")
    options = distinct(spec.options for spec in registry.REGISTRY.values())
    for name, declarations in options.items():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, default=SUPPRESS, help=_help(declarations), **_value(name, declarations))
    parser.set_defaults(**{_NAMES: tuple(options)})


def given_values(arguments: Namespace) -> dict[str, Any]:
    """The values of the flags that were given, by the name of the option.

    Args:
        arguments: parsed by a parser that `add_options` was applied to.
    """
    return {name: getattr(arguments, name) for name in getattr(arguments, _NAMES) if hasattr(arguments, name)}


def options_by_method(methods: Sequence[str], values: dict[str, Any]) -> dict[str, MethodOptions]:
    """The options of several methods by method id; a method takes the values of those options that it has.

    Args:
        methods: ids, at least one.
        values: by option name, of any method.

    Raises MethodError for an option that none of the methods has, and for a value that does not fit.
    """
    declared = {method: registry.get(method).options.declared() for method in methods}
    for name in values:
        if not any(name in options for options in declared.values()):
            raise MethodError(registry.refusal(methods, name))
    return {
        method: registry.read_options(method, {name: value for name, value in values.items() if name in options})
        for method, options in declared.items()
    }


def _value(name: str, declarations: Sequence[Option]) -> dict[str, Any]:
    """What a flag takes: nothing for a truth value, one of a few choices where all methods agree on them, or text."""
    if all(isinstance(option.default, bool) for option in declarations):
        return {"action": BooleanOptionalAction}
    choices = declarations[0].choices
    if choices and all(option.choices == choices for option in declarations):
        return {"choices": choices}
    return {"metavar": name.upper()}


def _help(declarations: Sequence[Option]) -> str:
    """The families of methods that have an option, its help and its default; several where the declarations differ."""
    return " ".join(map(_sentence, declarations)).replace("%", "%%")


def _sentence(option: Option) -> str:
    specs = [spec for spec in registry.REGISTRY.values() if spec.options.declared().get(option.name) == option]
    families = dict.fromkeys(spec.family for spec in specs)
    default = "" if option.default is None else f" (default: {option.default})"
    return f"{', '.join(families)}: {option.help}{default}"
