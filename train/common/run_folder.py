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

    Args:
        path: the folder; it is made where it is missing.
        config: the configuration; values that JSON lacks are stored as text.

    Raises:
        TrainingError: when the folder cannot be written, or holds a run with another configuration: resuming with
            other settings would give weights that no command reproduces.
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
        """Write a file atomically: afterwards it is complete, or as it was before. Only the main process writes.

        Args:
            name: name of the file in the folder.
            write: writes the content into an open file.

        Raises:
            TrainingError: when the file cannot be written.
        """
        if not self._main:
            return
        with self.writing():
            write_atomically(self.path / name, write)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Errors of the file system, such as a full disk, become a TrainingError that tells the reason."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch may wrap the system's error in a RuntimeError of its own
            reasons = [cause.strerror for cause in (error, error.__context__) if isinstance(cause, OSError)]
            reason = next(filter(None, reasons), None) or " ".join(str(error).split()) or type(error).__name__
            raise TrainingError(
                f"Cannot write into {self.path}: {reason}. What it holds is kept; the same command goes on from there."
            ) from error

    def _claim(self, config_path: Path) -> None:
        """Write the configuration into a new folder, or compare it with the stored one."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            content = config_path.read_bytes() if config_path.exists() else None
        if content is None:
            self.replace("config.json", lambda file: file.write(self.text().encode()))
            return
        try:
            stored = dict(json.loads(content))
        except (ValueError, TypeError) as error:
            raise TrainingError(f"{config_path} is no configuration; choose another --out.") from error
        keys = sorted(stored.keys() | self.config.keys())
        changed = [key for key in keys if stored.get(key) != self.config.get(key)]
        if changed:
            changes = ", ".join(f"{key} was {stored.get(key)!r}, now {self.config.get(key)!r}" for key in changed)
            raise TrainingError(f"{self.path} holds a run with other settings ({changes}); choose another --out.")


class Log:
    """log.csv: a line every few steps with the mean of each loss since the line before."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._path = folder, folder.path / "log.csv"
        self._sums, self._count = {}, 0
        self._start = time.perf_counter()

    def add(self, losses: Mapping[str, float]) -> None:
        """Count the losses of one step."""
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in losses.items()}
        self._count += 1

    def write(self, step: int, rate: float) -> float:
        """Write a line.

        Args:
            step: number of steps that are done.
            rate: learning rate of the last step.

        Returns:
            The mean of the total loss since the line before.
        """
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
        """Drop the lines after the step that training resumes from, and a line that a failed write left incomplete."""
        if not self._path.exists():
            return
        with self._folder.writing():
            head, *lines = self._path.read_bytes().splitlines(keepends=True) or [b""]
        numbered = [(line.partition(b",")[0], line) for line in lines if line.endswith(b"\n")]
        kept = [line for number, line in numbered if number.isdigit() and int(number) <= step]
        self._folder.replace("log.csv", lambda file: file.writelines([head, *kept] if kept else []))

    def state_dict(self) -> dict[str, Any]:
        """The losses summed since the last line, the number of steps in the sums, and the seconds trained so far."""
        return {"sums": self._sums, "count": self._count, "seconds": self._seconds()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state_dict` gave."""
        self._sums, self._count = state["sums"], state["count"]
        self._start = time.perf_counter() - state["seconds"]

    def _seconds(self) -> float:
        """Time trained so far, in this and in earlier processes."""
        return time.perf_counter() - self._start
