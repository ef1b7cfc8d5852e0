"""Checks of numbers, and records of weight files, that a run takes from its command line."""

from pathlib import Path

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.factory import MINI
from ovseg_demo.weights import catalogue
from train.common.run_folder import TrainingError


def check_at_least(least: int, **settings: int | None) -> None:
    """Raise TrainingError that names the setting when one of the settings is below `least`; None is accepted."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise TrainingError(f"{name} is {value}, but must be {least} or more.")


def describe_weights(name: str) -> str:
    """What the configuration of a run says of weights: their name, or the record of their file, see `describe_file`.

    Args:
        name: "mini", an id of the catalogue, or the path of a file.

    Raises:
        CheckpointError: when there is no such file.
    """
    return name if name == MINI or name in catalogue.entries() else describe_file(Path(name))


def describe_file(path: Path) -> str:
    """The record of a file: its name and sha256. Raises CheckpointError when there is no such file."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    return f"{path.name}, sha256 {catalogue.sha256_of(path)}"
