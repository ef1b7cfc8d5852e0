"""What people give to a run: numbers, which have their limits, and files, which are what they hold."""

from pathlib import Path

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.factory import MINI
from ovseg_demo.weights import catalogue
from train.common.run_folder import TrainingError


def check_at_least(least: int, **given: int | None) -> None:
    """Raises TrainingError for a number below `least`; None is no number."""
    for name, value in given.items():
        if value is not None and value < least:
            raise TrainingError(f"{name} is {value}, but must be {least} or more.")


def describe_weights(name: str) -> str:
    """What the configuration of a run says of weights: "mini" and ids of the catalogue, or what a file holds."""
    return name if name == MINI or name in catalogue.entries() else describe_file(Path(name))


def describe_file(path: Path) -> str:
    """A file by its name and content, wherever it lies. Raises CheckpointError when there is none."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    return f"{path.name}, sha256 {catalogue.sha256_of(path)}"
