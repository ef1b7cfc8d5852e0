"""Named stages of a request: cached results, progress, cancelling, timings.

A method asks for each slow result by a key that says everything that the result depends on. A cached result is
returned at once. A missing result is computed, with progress, by one worker that serves one request at a time, because
one image already uses every core.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
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
"""Results of `Stages.cached_batch` that are computed at once: fast ones, and slow ones."""


@dataclass(frozen=True)
class Progress:
    """How far a request is.

    Attributes:
        stage: name of the running stage, as shown to people.
        fraction: finished share of the stage, 0 to 1.
        cached: whether the result of the stage came from the cache.
        waiting: whether the stage waits for another request.
    """

    stage: str
    fraction: float
    cached: bool = False
    waiting: bool = False


Listener = Callable[[Progress], None]
"""Receives progress, from any thread. It may raise Cancelled, which ends the request."""


def ignore_progress(_: Progress) -> None:
    """A listener that does nothing."""


class Cache:
    """Results of stages, bounded in bytes and shared by threads; the least recently used are evicted.

    Keys contain hashes of the content, so the result for one person's photo is returned to another person only for the
    same photo. A value larger than the bound is not kept.

    Args:
        limit_bytes: bound on the sum of the values' `nbytes`.

    Example:
        >>> import numpy as np
        >>> cache = Cache(limit_bytes=10)
        >>> cache.put("a", np.zeros(6, np.uint8))
        >>> cache.put("b", np.zeros(6, np.uint8))
        >>> cache.get("a") is None, cache.nbytes
        (True, 6)
    """

    def __init__(self, limit_bytes: int) -> None:
        self._entries: LRUCache[Hashable, Any] = LRUCache(limit_bytes, getsizeof=_nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        """The value of a key, or None when it is not here."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value under a key. The value must have an attribute `nbytes`, as arrays and tensors do."""
        with self._lock:
            if value.nbytes <= self._entries.maxsize:
                self._entries[key] = value

    @property
    def nbytes(self) -> int:
        """Bytes of all values that are kept now."""
        with self._lock:
            return int(self._entries.currsize)


def _nbytes(value: Any) -> int:
    return value.nbytes


class SerialWorker:
    """Runs the slow work of all requests, one piece at a time, always in the same thread.

    It is one thread because every thread keeps the memory that its computations once needed: with one thread for each
    request the process grew to 3.4 GB.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="serial-worker")

    def run(self, work: Callable[[], Result], waiting: Callable[[], None]) -> Result:
        """What `work` returns, called when the work submitted before it is done.

        Args:
            work: the computation.
            waiting: called every POLL_SECONDS until `work` begins. When it raises, `work` is not run.

        Raises:
            Exception: whatever `work` or `waiting` raises.
        """
        future = self._executor.submit(work)
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
    """The stages of one request.

    Args:
        cache: results of earlier requests, and of this one.
        worker: computes the slow stages of all requests.
        listener: receives the progress of this request, and may raise Cancelled to end it.

    Attributes:
        timings: seconds by name of each finished stage, 0 for a stage whose result was cached. A stage that a request
            runs several times, as words are read for several models, has the sum.
    """

    def __init__(self, cache: Cache, worker: SerialWorker, listener: Listener) -> None:
        self._cache = cache
        self._worker = worker
        self._listener = listener
        self.timings: dict[str, float] = {}

    def cached(self, stage: str, key: Hashable, make: Callable[[Callable[[float], None]], Any]) -> Any:
        """The result of a slow stage, from the cache or computed by the worker.

        Args:
            stage: name of the stage, as shown to people.
            key: says everything that the result depends on.
            make: computes the result, a value with `nbytes`. It calls the function that it is given with the finished
                share, 0 to 1; this function raises Cancelled when the person has asked to stop.

        Raises:
            Cancelled: the listener raised it.
            Exception: whatever `make` raises; then nothing is cached.
        """
        value = self._cache.get(key)
        cached, seconds = value is not None, 0.0
        if not cached:
            self._listener(Progress(stage, 0))
            value, seconds = self._run_on_worker(stage, lambda: self._make(stage, key, make))
        self._add(stage, seconds)
        self._listener(Progress(stage, 1, cached))
        return value

    def _add(self, stage: str, seconds: float) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + seconds

    def _make(self, stage: str, key: Hashable, make: Callable[[Callable[[float], None]], Any]) -> tuple[Any, float]:
        """What `make` returns, now cached, and the seconds that `make` took."""
        value = self._cache.get(key)
        if value is not None:  # a request that the worker served before has computed the same result
            return value, 0.0
        start = time.perf_counter()
        value = make(lambda fraction: self._listener(Progress(stage, fraction)))
        self._cache.put(key, value)
        return value, time.perf_counter() - start

    def _run_on_worker(self, stage: str, work: Callable[[], Result]) -> Result:
        """What `work` returns, run by the worker after the requests that came first; then its memory is given back."""

        def work_and_trim() -> Result:
            try:
                return work()
            finally:
                memory.trim_allocator()

        return self._worker.run(work_and_trim, lambda: self._listener(Progress(stage, 0, waiting=True)))

    def cached_batch(
        self, stage: str, keys: Sequence[Hashable], make: Callable[[list[int]], Sequence[Any]], exclusive: bool = False
    ) -> list[Any]:
        """Many results of one stage, each with its own cache entry; the missing ones are computed in batches.

        Args:
            stage: name of the stage, as shown to people.
            keys: for each result, everything that it depends on.
            make: computes the results, values with `nbytes`, of the keys at the indices that it is given.
            exclusive: whether a result takes long. If so, the worker computes the batches, and they are smaller, so
                that other requests are served between two of them. If not, the calling thread computes them.

        Returns:
            The results in the order of `keys`.

        Raises:
            Cancelled: the listener raised it; the batches before that stay cached.
            Exception: whatever `make` raises.
        """
        batch_size = _EXCLUSIVE_BATCH if exclusive else _SHARED_BATCH
        start = time.perf_counter()
        values = [self._cache.get(key) for key in keys]
        missing = [i for i, value in enumerate(values) if value is None]
        for first in range(0, len(missing), batch_size):
            self._listener(Progress(stage, first / len(missing)))
            batch = missing[first : first + batch_size]
            made = self._run_on_worker(stage, partial(make, batch)) if exclusive else make(batch)
            for index, value in zip(batch, made, strict=True):
                values[index] = value
                self._cache.put(keys[index], value)
        self._add(stage, time.perf_counter() - start if missing else 0.0)
        self._listener(Progress(stage, 1, cached=not missing))
        return values

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """A fast stage that is never cached: progress and timing of the code inside the `with` statement."""
        self._listener(Progress(stage, 0))
        start = time.perf_counter()
        yield
        self._add(stage, time.perf_counter() - start)
        self._listener(Progress(stage, 1))


class CancelFlag:
    """A listener that forwards progress until the person cancels, and from then on raises Cancelled.

    Args:
        listener: receives the progress.
    """

    def __init__(self, listener: Listener = ignore_progress) -> None:
        self._listener = listener
        self._event = threading.Event()

    def cancel(self) -> None:
        """End the request at its next progress; may be called from any thread."""
        self._event.set()

    def __call__(self, progress: Progress) -> None:
        if self._event.is_set():
            raise Cancelled
        self._listener(progress)
