"""Small pieces of work side by side, each on a core of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 4
"""Workers. Batches are small, and their pieces must still be worth having."""


class WorkerPool:
    """Some workers, or the caller alone where there is no pool."""

    def __init__(self, workers: int = 1, pool: Executor | None = None) -> None:
        self._workers = workers
        self._pool = pool

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`work` of each item, in their order. Raises what `work` raises."""
        if self._pool is None:
            return [work(item) for item in items]
        return list(self._pool.map(torch.inference_mode()(work), items))

    def chunks(self, batch: Tensor) -> list[Tensor]:
        """A batch (B, ...) cut into a piece a worker; fewer when it is small."""
        return [piece for piece in batch.tensor_split(self._workers) if len(piece)]


@contextmanager
def worker_pool(device: torch.device) -> Iterator[WorkerPool]:
    """Workers that share torch's threads on a CPU; on another device the caller works alone.

    Single layers of small models do not keep two cores busy: when each core takes half of a batch, SAM's decoder needs
    three quarters of the time that it needs when they share every layer (docs/speed.md). torch has one number of
    threads for the whole process, so while a crew works, all else that the process does has as few.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MAX_WORKERS)
    if device.type != "cpu" or workers == 1:
        yield WorkerPool()
        return
    torch.set_num_threads(threads // workers)
    try:
        yield WorkerPool(workers, _executor(workers, threads // workers))
    finally:
        torch.set_num_threads(threads)


@cache
def _executor(workers: int, threads: int) -> Executor:
    """Workers that stay, with what oneDNN prepares for each, every one with so many threads of torch's."""
    return ThreadPoolExecutor(workers, f"crew-{threads}", torch.set_num_threads, (threads,))
