"""How files of evaluation and training are written: whole or not at all, whatever ends the process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def replace_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file in one go: under its name there is all of it, or what was there before.

    Args:
        path: of the file; its folder exists. The content is collected beside it, in a file with ".part" appended.
        write: writes the content into the binary file that it is given.

    Raises:
        OSError: when the system refuses; whatever `write` raises is passed on.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with no content
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
