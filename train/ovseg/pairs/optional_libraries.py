"""Libraries that only the collection of pairs needs."""

from importlib import import_module
from types import ModuleType

from train.common.run_folder import TrainingError


def import_optional(name: str) -> ModuleType:
    """A module of one of them. Raises TrainingError that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise TrainingError(
            f"train.ovseg.pairs needs more libraries ({error}): pip install -r requirements-train.txt"
        ) from error
