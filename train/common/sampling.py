"""Batches of a training run: functions of the seed, the step and the process alone, drawn ahead by workers if any."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from ovseg_demo.errors import UserError

Batch = Mapping[str, Any]


class StepGenerator(torch.Generator):
    """The random generator, on the CPU, that draws the batch of one step in one process.

    Attributes:
        step: number of the step, from 0.
        process: number of the process, from 0.
        processes: how many processes train together.
    """

    def __init__(self, seed: int, step: int, process: int, processes: int) -> None:
        super().__init__()
        self.step, self.process, self.processes = step, process, processes
        self.manual_seed(step_seeds(seed, step, process)[0])

    def __new__(cls, *_: int) -> "StepGenerator":
        return super().__new__(cls)


BatchSampler = Callable[[StepGenerator], Batch]
"""Draws the batch of a step. All randomness comes from the generator, so any process can draw the batch at any time."""


class SetSampler:
    """Draws sets with probabilities proportional to the square root of the number of photos times that of classes.

    Args:
        photos: the number of photos of each set, 1 or more.
        classes: the number of classes of each set, 1 or more.
    """

    def __init__(self, photos: Sequence[int], classes: Sequence[int]) -> None:
        self._photos = photos
        self._weights = torch.tensor([(p * c) ** 0.5 for p, c in zip(photos, classes, strict=True)])

    def draw_sets(self, count: int, generator: torch.Generator) -> list[int]:
        """The numbers of `count` sets, from 0, drawn with replacement by `generator`."""
        return torch.multinomial(self._weights, count, replacement=True, generator=generator).tolist()

    def draw_photo(self, number: int, generator: torch.Generator) -> int:
        """The number of a photo, from 0, in the set with this number; all photos of a set are equally likely."""
        return int(torch.randint(self._photos[number], (), generator=generator))


class EpochOrder:
    """Rows in epochs. An epoch has every row once, except a remainder, in an order drawn for the epoch.

    Args:
        rows: the rows, int64 (N,).
        size: the number of rows of a process in a step.
        seed: seed of the orders.
    """

    def __init__(self, rows: np.ndarray, size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, size, seed
        self._order = lru_cache(1)(self._shuffled)

    def steps(self, processes: int) -> int:
        """The number of steps of an epoch; 0 when there are too few rows for one step."""
        return len(self._rows) // (self._size * processes)

    def rows_of_step(self, generator: StepGenerator) -> list[int]:
        """The rows of one process in a step, of which an epoch must have at least one."""
        epoch, step = divmod(generator.step, self.steps(generator.processes))
        first = (step * generator.processes + generator.process) * self._size
        return self._order(epoch)[first : first + self._size].tolist()

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self._rows)


def step_seeds(seed: int, step: int, process: int) -> tuple[int, int]:
    """Two seeds of one step in one process: for drawing the batch, and for random layers such as dropout.

    Args:
        seed: seed of the run.
        step: number of the step, from 0.
        process: number of the process, from 0.
    """
    batch, layers = np.random.SeedSequence((seed, step, process)).generate_state(2).tolist()
    return batch, layers


class _StepDataset(Dataset):
    """The batch of each step; a UserError is returned, for torch would change the class of an error in a worker."""

    def __init__(self, draw: BatchSampler, seed: int, accelerator: Accelerator) -> None:
        self._draw, self._seed = draw, seed
        self._process = accelerator.process_index, accelerator.num_processes

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self._draw(StepGenerator(self._seed, step, *self._process))
        except UserError as error:
            return error


def draw_batches(
    draw: BatchSampler, seed: int, steps: range, accelerator: Accelerator, workers: int
) -> Iterator[Batch]:
    """The batches of some steps for this process, in order.

    Args:
        draw: draws a batch.
        seed: seed of the run.
        steps: numbers of the steps.
        accelerator: tells the number of this process and how many processes there are.
        workers: number of processes that draw ahead; 0 draws in this process.

    Raises:
        UserError: when `draw` raises it.
    """
    dataset = _StepDataset(draw, seed, accelerator)
    for batch in DataLoader(dataset, None, sampler=steps, num_workers=workers, collate_fn=_unchanged):
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _unchanged(batch: Any) -> Any:
    return batch
