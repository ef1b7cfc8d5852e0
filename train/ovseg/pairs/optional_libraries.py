"""Libraries that only the collection of pairs needs."""

from importlib import import_module
from types import ModuleType

from train.common.run_folder import TrainingError


def import_optional(name: str) -> ModuleType:
    """The module of this name. Raises TrainingError, which says how to install the libraries, when it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise TrainingError(
            f"train.ovseg.pairs needs more libraries ({error}): pip install -r requirements-train.txt"
        ) from error
