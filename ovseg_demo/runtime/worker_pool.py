"""A pool of worker threads for small pieces of work, each on a core of its own."""

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
"""Most workers of a pool. Batches are small, and with more workers a piece would be too small to be worth sharing."""


class WorkerPool:
    """Workers that run a function on many items at once; without an executor, the caller runs it item by item.

    Args:
        workers: how many run at once.
        executor: runs them; None for the caller alone.
    """

    def __init__(self, workers: int = 1, executor: Executor | None = None) -> None:
        self._workers = workers
        self._executor = executor

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """What `work` returns for each item, in the order of the items; the workers run it in inference mode.

        Raises:
            Exception: whatever `work` raises first.
        """
        if self._executor is None:
            return [work(item) for item in items]
        return list(self._executor.map(torch.inference_mode()(work), items))

    def chunks(self, batch: Tensor) -> list[Tensor]:
        """A batch (B, ...) split into one chunk (b, ...) for each worker; fewer chunks when B is smaller."""
        return [chunk for chunk in batch.tensor_split(self._workers) if len(chunk)]


@contextmanager
def worker_pool(device: torch.device) -> Iterator[WorkerPool]:
    """A pool of workers that divide torch's threads among them on a CPU; on another device the caller works alone.

    Single layers of small models do not keep two cores busy: when each core takes half of a batch, SAM's decoder needs
    three quarters of the time that it needs when the cores share every layer (docs/speed.md). torch has one number of
    threads for the whole process, so while a pool is open, everything else in the process has as few threads as one
    worker.

    Args:
        device: where the work is done.
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
    """Workers that stay for later pools, with what oneDNN has prepared for them; each has `threads` of torch's."""
    return ThreadPoolExecutor(workers, f"worker-pool-{threads}", torch.set_num_threads, (threads,))
