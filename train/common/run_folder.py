"""The folder of a training run: its configuration, its log, its last state, its weights."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from accelerate import PartialState

from ovseg_demo.errors import UserError
from ovseg_demo.runtime.files import write_atomically


class TrainingError(UserError):
    """A run cannot go on: its data, its settings, its folder or its numbers are not what they should be."""


class RunFolder:
    """A folder that belongs to one configuration. Of several processes only the main one reads and writes it.

    Raises TrainingError when it cannot be written, or holds a run with another configuration: going on with other
    settings would give weights that no command reproduces.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config = json.loads(json.dumps(config, default=str))
        # accelerate takes no notice of a launcher on a machine without a GPU unless told that it is about CPUs.
        self._main = PartialState(cpu=not torch.cuda.is_available()).is_main_process
        if self._main:
            self._claim(path / "config.json")

    def text(self) -> str:
        """The configuration in full, as JSON."""
        return json.dumps(self.config, indent=1, sort_keys=True) + "\n"

    def replace(self, name: str, write: Callable[[BinaryIO], Any]) -> None:
        """Write a file in one go: it is complete, or as it was before. Raises TrainingError."""
        if not self._main:
            return
        with self.writing():
            write_atomically(self.path / name, write)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the system refuses, a full disk for one, becomes a TrainingError."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch may wrap the system's error in a RuntimeError of its own
            known = [each.strerror for each in (error, error.__context__) if isinstance(each, OSError)]
            reason = next(filter(None, known), None) or " ".join(str(error).split()) or type(error).__name__
            raise TrainingError(
                f"Cannot write into {self.path}: {reason}. What it holds is kept; the same command goes on from there."
            ) from error

    def _claim(self, known: Path) -> None:
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            content = known.read_bytes() if known.exists() else None
        if content is None:
            self.replace("config.json", lambda file: file.write(self.text().encode()))
            return
        try:
            before = dict(json.loads(content))
        except (ValueError, TypeError) as error:
            raise TrainingError(f"{known} is no configuration; choose another --out.") from error
        keys = sorted(before.keys() | self.config.keys())
        changed = [key for key in keys if before.get(key) != self.config.get(key)]
        if changed:
            what = ", ".join(f"{key} was {before.get(key)!r}, now {self.config.get(key)!r}" for key in changed)
            raise TrainingError(f"{self.path} holds a run with other settings ({what}); choose another --out.")


class Log:
    """log.csv: a line every few steps with the mean of each loss since the line before."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._path = folder, folder.path / "log.csv"
        self._sums, self._count = {}, 0
        self._start = time.perf_counter()

    def add(self, losses: Mapping[str, float]) -> None:
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in losses.items()}
        self._count += 1

    def write(self, step: int, rate: float) -> float:
        """Write the line of a step; returns the mean of the total loss."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        loss = sum(means.values())
        row = {"step": str(step), "seconds": f"{self._seconds():.1f}", "learning_rate": f"{rate:.3g}"}
        row |= {name: f"{value:.5g}" for name, value in ({"loss": loss} | means).items()}
        with self._folder.writing(), self._path.open("a", encoding="utf-8") as file:
            for line in [row.values()] if file.tell() else [row, row.values()]:
                file.write(",".join(line) + "\n")
        return loss

    def cut(self, step: int) -> None:
        """Drop the lines after a step, which is done again from there, and whatever a failed write has torn."""
        if not self._path.exists():
            return
        with self._folder.writing():
            head, *lines = self._path.read_bytes().splitlines(keepends=True) or [b""]
        numbered = [(line.partition(b",")[0], line) for line in lines if line.endswith(b"\n")]
        kept = [line for number, line in numbered if number.isdigit() and int(number) <= step]
        self._folder.replace("log.csv", lambda file: file.writelines([head, *kept] if kept else []))

    def state_dict(self) -> dict[str, Any]:
        """What the next line is made of."""
        return {"sums": self._sums, "count": self._count, "seconds": self._seconds()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._count = state["sums"], state["count"]
        self._start = time.perf_counter() - state["seconds"]

    def _seconds(self) -> float:
        """Time trained so far, in this and in earlier processes."""
        return time.perf_counter() - self._start
