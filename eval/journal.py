"""What is known of every finished image of a run, kept in the run's folder so that a run can go on where it stopped.

Each process appends to a file of its own, one line of JSON an image; everyone reads all of them. A line that a kill or
a full disk tore is no line: its image is evaluated again.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.metrics import Sparse
from ovseg_demo.errors import UserError
from ovseg_demo.runtime import files


class RunError(UserError):
    """The folder of a run cannot be written, or holds less than it should."""


@dataclass(frozen=True)
class Record:
    """A finished image.

    Attributes:
        key: of its sample.
        miou: of this image alone, over the classes in its ground truth; None when all of it is ignored.
        confusion, boundary: its counts.
        seconds: wall time by part: "loading" (beside the inference of the image before), "waiting" (for the loading),
            "inference", "metrics".
        stages: seconds by stage of the method.
    """

    key: str
    miou: float | None
    confusion: Sparse
    boundary: Sparse
    seconds: dict[str, float]
    stages: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """An image that could not be evaluated: `error` says why, and `path` which file is to blame."""

    key: str
    path: str
    error: str


class Journal:
    """The file of one process, to append to."""

    def __init__(self, folder: Path, process: int) -> None:
        self._folder = folder
        self._path = folder / f"journal-{process}.jsonl"
        with writing_into(folder):
            if self._path.exists():
                os.truncate(self._path, _entries(self._path.read_bytes())[1])

    def append(self, entry: Record | Failure) -> None:
        """Keep an entry. Raises RunError when it cannot be written; those before it are safe."""
        line = json.dumps(asdict(entry), separators=(",", ":")) + "\n"
        with writing_into(self._folder), self._path.open("ab") as file:
            file.write(line.encode())


def read(folder: Path) -> tuple[dict[str, Record], dict[str, Failure]]:
    """The finished images of all processes by key, and the failed ones, less those that succeeded since."""
    records, failures = {}, {}
    for path in sorted(folder.glob("journal-*.jsonl")):
        for fields in _entries(path.read_bytes())[0]:
            if "error" in fields:
                failures[fields["key"]] = Failure(**fields)
            else:
                records[fields["key"]] = Record(**fields)
    return records, {key: failure for key, failure in failures.items() if key not in records}


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Makes the folder where it is missing; what the system refuses, a full disk for one, becomes a RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write into {folder}: {error.strerror or error}. Finished images are kept, and the same command "
            "goes on from there when that is mended."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one go: it is complete, or as it was before. Raises RunError."""
    with writing_into(path.parent):
        files.write_atomically(path, lambda file: file.write(content))


def _entries(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The entries before the first torn line, and how many bytes they take."""
    entries, end = [], 0
    for line in content.splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        entries.append(entry)
        end += len(line)
    return entries, end
