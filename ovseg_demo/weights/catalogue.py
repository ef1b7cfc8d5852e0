"""The catalogue of weight files, and the verification of the files that are here.

`checkpoints/catalogue.json` lists every weight file that the demo knows. A file counts as present when it
lies in the checkpoints folder under its catalogued name; it is used only after its sha256 (or, where no hash
is published, what its publisher states instead) has been checked.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights.reading import named_tensors, read_weights


def _user_folder() -> Path:
    """The user's folder for data that a program keeps."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "ovseg-demo" / "checkpoints"


_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WHEEL = _PACKAGE / "_checkpoints"
INSTALLED = _IN_WHEEL.is_dir()
"""Whether this is an installed wheel, which holds the repository's weights, and no clone."""

BUNDLED = _IN_WHEEL if INSTALLED else _PACKAGE.parent / "checkpoints"
"""The folder of the catalogue and of the weights that ship with the code."""

FOLDER = Path(os.environ.get("OVSEG_CHECKPOINTS") or (_user_folder() if INSTALLED else BUNDLED))
"""Where every other weight file lies; an upgrade of an installed wheel must not delete what was downloaded."""

COMMAND = "ovseg-demo" if INSTALLED else ".venv/bin/python -m ovseg_demo"
"""The command line as pip or the README's commands install it."""

_CATALOGUE = BUNDLED / "catalogue.json"


@dataclass(frozen=True)
class Checkpoint:
    """One weight file of the catalogue.

    Attributes:
        id: the name used everywhere else, for example "mobile-sam".
        title: what it is, for people.
        file: file name inside the checkpoints folder.
        licence: SPDX name, or a sentence where there is none.
        bundled: True when the file ships in this repository.
        sources: where it comes from, best first. "hub:models/OWNER/REPO/FILE" or "hub:spaces/OWNER/REPO/FILE" is a
            file of the Hugging Face Hub, "drive:ID" one of Google Drive, "github:OWNER/REPO/TAG/FILE" one of a release
            on GitHub; "build:COMMAND" remakes a bundled file.
        sha256: hex digest, or None where the publisher gives none.
        size: bytes, or None when unknown.
        md5_prefix: the first hex digits of its md5, where that is all that is published.
        shapes: shapes of some of its tensors by name, enough to tell the file from the others where there is no sha256.
        paper: mean IoU in percent that its paper reports, by benchmark.
    """

    id: str
    title: str
    file: str
    licence: str
    bundled: bool
    sources: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None
    md5_prefix: str | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict, hash=False)
    paper: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def path(self) -> Path:
        """Where the file lies when it is present."""
        return (BUNDLED if self.bundled else FOLDER) / self.file

    @property
    def how_to_get(self) -> str:
        """The command that downloads, makes or copies the file."""
        fetch = f"{COMMAND} checkpoints --download {self.id}"
        made = self.sources[0].removeprefix("build:")
        if made == self.sources[0]:
            return fetch
        return made if self.bundled else f"{made} && {fetch} --from FILE"

    @property
    def present(self) -> bool:
        """Whether a file of its name is in its folder; it need not be intact."""
        return self.path.is_file()

    @property
    def published(self) -> bool:
        """Whether its publisher, or the catalogue, states a size or a hash that the file must have."""
        return not (self.sha256 is None and self.size is None and self.md5_prefix is None)


@cache
def entries() -> dict[str, Checkpoint]:
    """Every known checkpoint by id, in catalogue order."""
    entries = json.loads(_CATALOGUE.read_text(encoding="utf-8"))
    return {e["id"]: Checkpoint(**{**e, "sources": tuple(e["sources"])}) for e in entries}


def get(checkpoint_id: str) -> Checkpoint:
    """The catalogue entry of an id.

    Raises:
        CheckpointError: the id is unknown.

    Example:
        >>> get("mobile-sam").licence
        'Apache-2.0'
    """
    try:
        return entries()[checkpoint_id]
    except KeyError:
        ids = ", ".join(entries())
        raise CheckpointError(f"Unknown checkpoint '{checkpoint_id}'; known: {ids}.") from None


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex digits, computed once for each state of the file."""
    return _digest(path, "sha256")


def verify(checkpoint: Checkpoint) -> Path:
    """The path of a checkpoint's file after it was compared with what is published.

    Raises:
        CheckpointError: the file is missing, or its size or a hash differs.
    """
    if not checkpoint.present:
        path = checkpoint.path
        raise CheckpointError(f"{checkpoint.title} is not here: {path.name} is missing from {path.parent}.")
    check_published(checkpoint.path, checkpoint)
    return checkpoint.path


def check_published(path: Path, checkpoint: Checkpoint) -> None:
    """Compare a file with the size and the hashes that are published for a checkpoint.

    Args:
        path: the file, which may have any name.
        checkpoint: states the size and the hashes; what it does not state is not compared.

    Raises:
        CheckpointError: says what differs.
    """
    size = path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        raise CheckpointError(
            f"{path.name} is damaged or incomplete: {size} bytes instead of {checkpoint.size}; fetch it again."
        )
    if checkpoint.sha256 is not None and sha256_of(path) != checkpoint.sha256:
        raise CheckpointError(f"{path.name} is damaged: its sha256 is not the catalogued one; fetch it again.")
    if checkpoint.md5_prefix is not None:
        digits = _digest(path, "md5")[: len(checkpoint.md5_prefix)]
        if digits != checkpoint.md5_prefix:
            raise CheckpointError(
                f"{path.name} is damaged, or another file: its md5 begins with {digits} instead of the published "
                f"{checkpoint.md5_prefix}; fetch it again."
            )


def check_content(path: Path, checkpoint: Checkpoint) -> None:
    """Check that a file holds the tensors by which a checkpoint is recognised.

    Args:
        path: the file, which may have any name.
        checkpoint: states names and shapes of these tensors.

    Raises:
        CheckpointError: the file cannot be read, holds no tensors, or holds others; the error names the checkpoints of
            the catalogue that the file looks like.
    """
    shapes = {name: list(tensor.shape) for name, tensor in named_tensors(read_weights(path)).items()}
    if not shapes:
        raise CheckpointError(f"{path.name} holds no tensors.")
    if not _fits(checkpoint, shapes):
        fitting = [f"{c.title} ({c.id})" for c in entries().values() if c.shapes and _fits(c, shapes)]
        instead = f"it looks like {' or '.join(fitting)}" if fitting else f"it lacks {' or '.join(checkpoint.shapes)}"
        raise CheckpointError(f"{path.name} is not {checkpoint.title}: {instead}.")


def _fits(checkpoint: Checkpoint, shapes: Mapping[str, list[int]]) -> bool:
    return all(shapes.get(name) == list(shape) for name, shape in checkpoint.shapes.items())


def _digest(path: Path, algorithm: str) -> str:
    status = path.stat()
    return _digest_once(path, status.st_size, status.st_mtime_ns, algorithm)


@cache
def _digest_once(path: Path, size: int, changed: int, algorithm: str) -> str:
    """Cached, because a file of two gigabytes takes seconds and several methods may load it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()
