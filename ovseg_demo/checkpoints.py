"""Catalogue entry -> verified local file -> state dict -> module.

`checkpoints/catalogue.json` lists every weight file that the demo knows. A file counts as present when it
lies in the checkpoints folder under its catalogued name; it is used only after its sha256 (or, where no hash
is published, its tensor names and shapes) has been checked.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ovseg_demo.errors import CheckpointError

BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"
"""The repository's own folder."""

FOLDER = Path(os.environ.get("OVSEG_CHECKPOINTS", BUNDLED))
"""Where every other weight file lies."""

_CATALOGUE = BUNDLED / "catalogue.json"
_NAMES_SHOWN = 5


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
            file of the Hugging Face Hub; "build:COMMAND" remakes a bundled file.
        sha256: hex digest, or None where the publisher gives none.
        size: bytes, or None when unknown.
    """

    id: str
    title: str
    file: str
    licence: str
    bundled: bool
    sources: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None

    @property
    def path(self) -> Path:
        return (BUNDLED if self.bundled else FOLDER) / self.file

    @property
    def present(self) -> bool:
        return self.path.is_file()


@cache
def catalogue() -> dict[str, Checkpoint]:
    """Every known checkpoint by id, in catalogue order."""
    entries = json.loads(_CATALOGUE.read_text(encoding="utf-8"))
    return {e["id"]: Checkpoint(**{**e, "sources": tuple(e["sources"])}) for e in entries}


def get(checkpoint_id: str) -> Checkpoint:
    """The catalogue entry of an id. Raises CheckpointError for an unknown id."""
    try:
        return catalogue()[checkpoint_id]
    except KeyError:
        known = ", ".join(catalogue())
        raise CheckpointError(f"Unknown checkpoint '{checkpoint_id}'; known: {known}.") from None


def sha256_of(path: Path) -> str:
    """Hex sha256 digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(checkpoint: Checkpoint) -> Path:
    """The path of a checkpoint whose size and hash are right. Raises CheckpointError otherwise."""
    path = checkpoint.path
    if not checkpoint.present:
        raise CheckpointError(f"{checkpoint.title} is not here: {path.name} is missing from {path.parent}.")
    size = path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        raise CheckpointError(
            f"{path.name} is damaged or incomplete: {size} bytes instead of {checkpoint.size}; fetch it again."
        )
    if checkpoint.sha256 is not None and sha256_of(path) != checkpoint.sha256:
        raise CheckpointError(f"{path.name} is damaged: its sha256 is not the catalogued one; fetch it again.")
    return path


def load_state_dict(checkpoint_id: str) -> dict[str, Tensor]:
    """The verified tensors of a checkpoint, in the precision of the file.

    Raises CheckpointError when the file is missing, fails verification, or cannot be read.
    """
    return read(verify(get(checkpoint_id)))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in its precision, unverified. Raises CheckpointError when it cannot be read."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise CheckpointError(
            f"{path.name} cannot be read as weights: it is damaged, or holds more than tensors."
        ) from error


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`, every tensor or none.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    wanted = module.state_dict()
    faults = [
        ("missing", sorted(wanted.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - wanted.keys())),
        ("misshapen", sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)),
    ]
    told = [f"{len(names)} {kind} ({_shortened(names)})" for kind, names in faults if names]
    if told:
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: {'; '.join(told)}.")
    module.load_state_dict(state)


def _shortened(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
