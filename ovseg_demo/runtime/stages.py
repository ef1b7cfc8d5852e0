"""Named stages of a request: cached results, progress, cancelling, timings.

A method asks for each slow result by a key that says everything it depends on. What is cached is answered at once;
what is not is made, with progress, one request at a time, because one image already uses every core.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cachetools import LRUCache

from ovseg_demo.errors import Cancelled
from ovseg_demo.runtime import memory

Result = TypeVar("Result")

POLL_SECONDS = 0.1
"""Between two looks at whether a wait is over; so often the listener is asked whether the request is cancelled."""

_SHARED_BATCH, _EXCLUSIVE_BATCH = 64, 8


@dataclass(frozen=True)
class Progress:
    """News of a running request.

    Attributes:
        stage: what is being done, for people.
        fraction: finished share of the stage, 0 to 1.
        cached: True when the stage was answered from the cache.
        waiting: True while other requests are served first.
    """

    stage: str
    fraction: float
    cached: bool = False
    waiting: bool = False


Listener = Callable[[Progress], None]
"""Receives progress, from any thread. It may raise Cancelled, which ends the request."""


def ignore_progress(_: Progress) -> None:
    """A listener for callers who do not care."""


class Cache:
    """Least-recently-used results, bounded in bytes, shared by threads.

    Keys hold content hashes, so one user's entry answers another only for equal content. A value larger than the
    bound is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._entries: LRUCache = LRUCache(limit_bytes, getsizeof=lambda value: value.nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            return self._entries.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value that has `nbytes`."""
        with self._lock:
            if value.nbytes <= self._entries.maxsize:
                self._entries[key] = value

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return self._entries.currsize


class SerialWorker:
    """Does heavy work one piece at a time, always in the same thread; waiting for a turn can be cancelled.

    One thread, because every thread keeps memory of its own for what it once computed: with a thread a request the
    process grew to 3.4 GB.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="heavy")

    def run(self, work: Callable[[], Result], waiting: Callable[[], None]) -> Result:
        """The result of `work`. Until its turn comes, `waiting` is called now and then; it may raise to give up."""
        future = self._worker.submit(work)
        try:
            while True:
                done, _ = wait([future], timeout=POLL_SECONDS)
                if done:
                    return future.result()
                if not future.running():
                    waiting()
        finally:
            future.cancel()


class Stages:
    """The stages of one request."""

    def __init__(self, cache: Cache, turns: SerialWorker, listener: Listener) -> None:
        self._cache = cache
        self._turns = turns
        self._listener = listener
        self.timings: dict[str, float] = {}

    def cached(self, stage: str, key: Hashable, make: Callable[[Callable[[float], None]], Any]) -> Any:
        """The result of a stage, from the cache or made by `make(report)` when its turn comes.

        `report(fraction)` passes progress on and raises Cancelled when the person has asked to stop.
        """
        value = self._cache.get(key)
        cached, seconds = value is not None, 0.0
        if not cached:
            self._listener(Progress(stage, 0))
            value, seconds = self._in_turn(stage, lambda: self._made(stage, key, make))
        self.timings[stage] = seconds
        self._listener(Progress(stage, 1, cached))
        return value

    def _made(self, stage: str, key: Hashable, make: Callable[[Callable[[float], None]], Any]) -> tuple[Any, float]:
        """What `make` makes, kept, and the seconds it took."""
        value = self._cache.get(key)
        if value is not None:  # a request before us has made it
            return value, 0.0
        start = time.perf_counter()
        value = make(lambda fraction: self._listener(Progress(stage, fraction)))
        self._cache.put(key, value)
        return value, time.perf_counter() - start

    def _in_turn(self, stage: str, work: Callable[[], Result]) -> Result:
        """What `work` returns, when the requests before this one have had their turn."""

        def released() -> Result:
            try:
                return work()
            finally:
                memory.trim_allocator()

        return self._turns.run(released, lambda: self._listener(Progress(stage, 0, waiting=True)))

    def cached_batch(
        self, stage: str, keys: Sequence[Hashable], make: Callable[[list[int]], Sequence[Any]], exclusive: bool = False
    ) -> list[Any]:
        """Results cached one by one; `make(indices)` makes missing ones, a batch at a time.

        `exclusive` says that each takes long: batches are smaller then, and every one is made when its turn comes.
        """
        at_once = _EXCLUSIVE_BATCH if exclusive else _SHARED_BATCH
        start = time.perf_counter()
        values = [self._cache.get(key) for key in keys]
        missing = [i for i, value in enumerate(values) if value is None]
        for first in range(0, len(missing), at_once):
            self._listener(Progress(stage, first / len(missing)))
            batch = missing[first : first + at_once]
            made = self._in_turn(stage, partial(make, batch)) if exclusive else make(batch)
            for index, value in zip(batch, made, strict=True):
                values[index] = value
                self._cache.put(keys[index], value)
        self.timings[stage] = time.perf_counter() - start if missing else 0.0
        self._listener(Progress(stage, 1, cached=not missing))
        return values

    @contextmanager
    def timed(self, stage: str):
        """A stage that is never cached."""
        self._listener(Progress(stage, 0))
        start = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - start
        self._listener(Progress(stage, 1))


class CancelFlag:
    """A listener that forwards progress until the person cancels."""

    def __init__(self, listener: Listener = ignore_progress) -> None:
        self._listener = listener
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    def __call__(self, progress: Progress) -> None:
        if self._event.is_set():
            raise Cancelled
        self._listener(progress)
