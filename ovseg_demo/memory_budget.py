"""A bound on the memory of work on photos of any size, over all requests of the process."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_SECONDS = 0.1


class MemoryBudget:
    """Lets pieces of work begin while the memory that they need together stays within a bound, in the order of asking.

    Args:
        limit_bytes: the bound.

    Example:
        >>> budget = MemoryBudget(100)
        >>> with budget.held(60), budget.held(40):
        ...     budget.free_bytes
        0
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.forget()

    def forget(self) -> None:
        """Take nothing as held; for a process that was forked while threads of its parent held memory."""
        self.free_bytes = self.limit_bytes
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def held(self, needed_bytes: int, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Holds memory inside the `with` statement; waits until it is free and the work that asked before has begun.

        Args:
            needed_bytes: more than the bound counts as the bound, so that such work runs alone.
            waiting: called again and again while it waits; what it raises ends the waiting.
        """
        needed, ticket = min(needed_bytes, self.limit_bytes), object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or needed > self.free_bytes:
                    waiting()
                    self._changed.wait(_POLL_SECONDS)
                self.free_bytes -= needed
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.free_bytes += needed
                self._changed.notify_all()


PHOTOS = MemoryBudget(720_000_000)
"""For decoding photos and writing results at their full size."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PHOTOS.forget)
