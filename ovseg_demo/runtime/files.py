"""Whole files: under its name a file is complete, or as it was before, whatever interrupts the writing."""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(
    path: Path, write: Callable[[BinaryIO], Any], *, shared: bool = False, durable: bool = True
) -> None:
    """Write a file beside its place under a temporary name, and give it its own name when it is complete.

    When `write` fails, the temporary file is removed. A process that is killed meanwhile leaves it.

    Args:
        path: the file, in a folder that exists. A file of this name is replaced.
        write: writes the content into the binary file that it is given.
        shared: whether several processes may write this file at the same time. The temporary name is then unique.
            Otherwise it is the name with ".part" after it, so that the next call overwrites what a killed process left.
        durable: whether the content must be on the disk before the file gets its name, so that a power cut cannot
            leave the name with no content; takes milliseconds.

    Raises:
        OSError: the system refuses to write.
        Exception: whatever `write` raises.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part" if shared else f"{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
        move_into_place(part, path, durable)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def move_into_place(part: Path, path: Path, durable: bool = True) -> None:
    """Give a complete file its name, in one step.

    Args:
        part: the file under its temporary name, on the same file system as `path`.
        path: its own name. A file of this name is replaced.
        durable: as for `write_atomically`.

    Raises:
        OSError: the system refuses.
    """
    if durable:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    part.replace(path)
