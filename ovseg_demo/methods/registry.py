"""Every method by its id, collected from the packages of the methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovseg_demo.errors import MethodError
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.dense.spec import DENSE, DENSE_CLIP
from ovseg_demo.methods.mrovseg.spec import MROVSEG, MROVSEG_MINI
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.methods.ovseg.spec import OVSEG, OVSEG_MINI
from ovseg_demo.methods.sed.spec import SED, SED_MINI
from ovseg_demo.methods.segclip.spec import SEGCLIP, SEGCLIP_MINI
from ovseg_demo.methods.tagclip.spec import TAGCLIP, TAGCLIP_MINI

_SPECS = (
    *OVSEG_MINI, *DENSE, *SED_MINI, *MROVSEG_MINI, *TAGCLIP_MINI, *SEGCLIP_MINI,
    *DENSE_CLIP, *OVSEG, *SED, *TAGCLIP, *SEGCLIP, *MROVSEG,
)  # fmt: skip
"""In the order of the page: what works without a download comes first."""

REGISTRY: dict[str, MethodSpec] = {spec.id: spec for spec in _SPECS}
DEFAULT = _SPECS[0].id


def get(method_id: str) -> MethodSpec:
    """The specification of a method. Raises MethodError for an unknown id."""
    try:
        return REGISTRY[method_id]
    except (KeyError, TypeError):
        raise MethodError(f"Unknown method '{method_id}'; known: {', '.join(REGISTRY)}.") from None


def available(method_id: str) -> MethodSpec:
    """The specification of a method whose weights are all here. Raises MethodError for any other."""
    spec = get(method_id)
    if missing := spec.missing():
        raise MethodError(f"{spec.title} needs {missing[0].file}, which is not here. {how_to_get(spec)}")
    return spec


def how_to_get(spec: MethodSpec) -> str:
    """One sentence on how to get the missing weights of a method, given by its specification."""
    return "Run: " + " && ".join(checkpoint.how_to_get for checkpoint in spec.missing())


def read_options(method_id: str, values: Mapping[str, Any]) -> MethodOptions:
    """The options of a method.

    Args:
        method_id: the method.
        values: by option name, as the command line, the API or the page has them.

    Raises MethodError, one sentence, for an option that the method does not have and for a value that does not fit.
    """
    options = get(method_id).options
    for name in values:
        if name not in options.declared():
            raise MethodError(refusal([method_id], name))
    return options(**values)


def refusal(methods: Sequence[str], option: str) -> str:
    """One sentence that says that some methods do not have an option, and which methods have it.

    Args:
        methods: ids, at least one.
        option: the name of the option.
    """
    others = [spec.id for spec in REGISTRY.values() if option in spec.options.declared()]
    elsewhere = f"these have it: {', '.join(others)}" if others else "no method has it"
    return f"{' and '.join(methods)} {'have' if len(methods) > 1 else 'has'} no option '{option}'; {elsewhere}."
