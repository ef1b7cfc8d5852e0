"""Open-vocabulary semantic segmentation: name every pixel of a photo with your own words."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovseg_demo.engine import Engine
    from ovseg_demo.methods.base import MethodSpec
    from ovseg_demo.result import Segmentation
    from ovseg_demo.vocabulary import Vocabulary

__all__ = ["Engine", "Segmentation", "Vocabulary", "list_methods"]
__version__ = "0.1.0"

# OpenMP's threads spin while they wait for each other. Where anything else wants the same few cores (a browser beside
# the demo, a neighbour on a shared host) that made a photo on two cores take 23 to 57 s instead of 3; sleeping costs
# a fifth on an idle machine. It must be set before torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_MODULES = {"Engine": "engine", "Segmentation": "result", "Vocabulary": "vocabulary"}
"""The module of each public class, imported when the class is first asked for: torch alone takes seconds."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def list_methods() -> "list[MethodSpec]":
    """Every method, in the order of the page; `missing()` of each is empty if its weights are all here.

    Example:
        >>> [method.id for method in list_methods() if not method.missing()]
        ['ovseg-sam-mini', 'mini-dense', 'sed-mini', 'mrovseg-mini', 'tagclip-mini', 'segclip-mini']
    """
    from ovseg_demo.methods import registry

    return list(registry.REGISTRY.values())
