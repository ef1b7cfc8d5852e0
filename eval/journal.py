"""The results of every finished image of a run, kept in the run's folder so that an interrupted run can be resumed.

Each process appends to a file of its own, one line of JSON an image, and reads the files of all processes. A line that
is incomplete after a kill or on a full disk is ignored: its image is evaluated again.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from eval.metrics import Sparse
from ovseg_demo.errors import UserError
from ovseg_demo.runtime import files

R = TypeVar("R")


class RunError(UserError):
    """The folder of a run cannot be written, or holds less than it should."""


@dataclass(frozen=True)
class Record:
    """A finished image.

    Attributes:
        key: key of the sample.
        miou: mIoU of this image alone over the classes in its ground truth, 0 to 1; None when every pixel is ignored.
        confusion: the counts of `Confusion`.
        boundary: the counts of `BoundaryCounts`.
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
    """An image that could not be evaluated.

    Attributes:
        key: key of the sample.
        path: the file that cannot be used.
        error: the reason, one sentence.
    """

    key: str
    path: str
    error: str


class Journal:
    """The journal file of one process.

    Args:
        folder: folder of the run.
        process: number of the process, from 0.

    Raises:
        RunError: when the folder cannot be written.
    """

    def __init__(self, folder: Path, process: int) -> None:
        self._folder = folder
        self._path = folder / f"journal-{process}.jsonl"
        with writing_into(folder):
            if self._path.exists():
                os.truncate(self._path, _entries(self._path.read_bytes())[1])

    def append(self, entry: Any) -> None:
        """Append a Failure, or a record: a dataclass with a key that is ready for JSON.

        Raises RunError when it cannot be written; earlier entries are kept.
        """
        line = json.dumps(asdict(entry), separators=(",", ":")) + "\n"
        with writing_into(self._folder), self._path.open("ab") as file:
            file.write(line.encode())


def read(folder: Path, record: Callable[..., R]) -> tuple[dict[str, R], dict[str, Failure]]:
    """The finished images of all processes by key, and the failed images that did not succeed later, by key.

    Args:
        folder: folder of the run.
        record: makes a record of the fields that were appended, for example the class `Record`.
    """
    records, failures = {}, {}
    for path in sorted(folder.glob("journal-*.jsonl")):
        for fields in _entries(path.read_bytes())[0]:
            if "error" in fields:
                failures[fields["key"]] = Failure(**fields)
            else:
                records[fields["key"]] = record(**fields)
    return records, {key: failure for key, failure in failures.items() if key not in records}


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing; errors of the file system, such as a full disk, become a RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write into {folder}: {error.strerror or error}. Finished images are kept, and the same command "
            "goes on from there when that is mended."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: it is complete, or as it was before. Raises RunError when it cannot be written."""
    with writing_into(path.parent):
        files.write_atomically(path, lambda file: file.write(content))


def _entries(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The entries before the first incomplete line, and how many bytes their lines take."""
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
