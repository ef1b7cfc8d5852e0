"""Loaded models, shared by all requests of a process and bounded in bytes.

A model is loaded by the first request that needs it, in the thread of that request. Meanwhile requests for other models
go on, and requests for the same model wait for it; every one of them can be cancelled. When the models together take
more bytes than the limit, those whose last request is longest ago are evicted: the store forgets them, and they are
freed as soon as no running request uses them.
"""

import gc
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch

from ovseg_demo.runtime import memory
from ovseg_demo.runtime.model_memory import default_limit_bytes, tensor_bytes
from ovseg_demo.runtime.stages import POLL_SECONDS, Listener, Progress, ignore_progress

Model = TypeVar("Model")

LOADING = "Loading the model"
"""The name of the stage in the progress that listeners receive."""


@dataclass(eq=False)
class _Entry:
    """A loaded model. It holds the entries of its parts, so that these stay in the store as long as the model does.

    Attributes:
        model: what `load` returned.
        parts: the entries of the models that were requested while this model was loaded.
        storages: bytes of the model's tensors by device and address of their storage, parts included.
    """

    model: Any
    parts: "list[_Entry]"
    storages: dict[tuple[torch.device, int], int] = field(init=False)

    def __post_init__(self) -> None:
        self.storages = tensor_bytes(self.model)
        for part in self.parts:
            self.storages |= part.storages


@dataclass(frozen=True)
class _Loading:
    """A model that a thread is loading now: its key, who hears of it, and the entries of the parts it has so far."""

    key: Hashable
    listener: Listener
    parts: list[_Entry] = field(default_factory=list)


class _ThreadState(threading.local):
    """The models that the current thread is loading, each one a part of the model before it."""

    def __init__(self) -> None:
        self.loading: list[_Loading] = []


class ModelStore:
    """Models by key, each loaded once and kept while there is room.

    `load` may itself request models: parts that several models share. A part is kept while a kept model was made with
    it, or while it is kept for requests of its own; its bytes count once. No model may be a part of itself.

    Args:
        limit_bytes: bound on the bytes of the models that are kept. The model of the latest request is kept even when
            it alone is larger. None stands for `default_limit_bytes()`.

    Example:
        >>> from torch import nn
        >>> store = ModelStore(limit_bytes=10**6)
        >>> tower = store.get(("tower", "cpu"), lambda: nn.Linear(10, 10, bias=False))
        >>> pair = store.get("pair", lambda: [store.get(("tower", "cpu"), lambda: nn.Linear(10, 10)), nn.Linear(1, 10)])
        >>> pair[0] is tower, store.resident_bytes
        (True, 480)
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        self._kept: OrderedDict[Hashable, _Entry] = OrderedDict()  # the model of the latest request stands last
        self._entries: WeakValueDictionary[Hashable, _Entry] = WeakValueDictionary()  # kept models and all their parts
        self._tables_lock = threading.Lock()  # guards the tables; never held while a model is loaded or freed
        self._loading_locks: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)
        self._thread = _ThreadState()

    @property
    def resident_bytes(self) -> int:
        """Bytes of the tensors of the models in the store when they were loaded; each storage counts once."""
        with self._tables_lock:
            return self._resident_bytes()

    def get(self, key: Hashable, load: Callable[[], Model], listener: Listener = ignore_progress) -> Model:
        """The model of a key: from the store, or made by `load`.

        Args:
            key: says everything that the model depends on, for example its kind, weights and device.
            load: makes the model. It may call `get` for the parts of the model, in the same thread.
            listener: receives progress while the model is loaded, by this request or by another one, and may raise
                Cancelled to give up. A request for a part without a listener has the listener of the whole model.

        Raises:
            Cancelled: `listener` raised it.
            Exception: `load` raised it. Errors are not kept: of the requests that wait for the same model, one goes on
                and calls its own `load`.
        """
        whole = self._thread.loading[-1] if self._thread.loading else None
        if whole and listener is ignore_progress:
            listener = whole.listener
        entry = self._find(key)
        if entry is None:
            with self._loading_lock(key, listener):
                entry = self._find(key) or self._load(key, load, listener)
            if not whole:
                listener(Progress(LOADING, 1))
        if whole:
            whole.parts.append(entry)
        return entry.model

    def _find(self, key: Hashable) -> _Entry | None:
        """The entry of a model that is in the store. A request that is not for a part makes it the latest."""
        with self._tables_lock:
            entry = self._entries.get(key)
            if entry and not self._thread.loading:
                self._keep(key, entry)
            return entry

    def _keep(self, key: Hashable, entry: _Entry) -> None:
        self._kept[key] = entry
        self._kept.move_to_end(key)

    @contextmanager
    def _loading_lock(self, key: Hashable, listener: Listener) -> Iterator[None]:
        """Only one thread loads the model of a key; `listener` hears of the wait for another thread."""
        if any(loading.key == key for loading in self._thread.loading):
            raise RuntimeError(f"The model {key!r} is a part of itself.")
        with self._tables_lock:
            lock = self._loading_locks[key]
        while not lock.acquire(timeout=POLL_SECONDS):
            listener(Progress(LOADING, 0, waiting=True))
        try:
            yield
        finally:
            lock.release()

    def _load(self, key: Hashable, load: Callable[[], Model], listener: Listener) -> _Entry:
        """The entry of a model that is made now. Unless it is a part it is kept, and what no longer fits is evicted."""
        listener(Progress(LOADING, 0))
        loading = _Loading(key, listener)
        self._thread.loading.append(loading)
        try:
            entry = _Entry(load(), loading.parts)
        finally:
            self._thread.loading.pop()
        evicted = []
        with self._tables_lock:
            self._entries[key] = entry
            if not self._thread.loading:
                self._keep(key, entry)
                while len(self._kept) > 1 and self._resident_bytes() > self.limit_bytes:
                    evicted.append(self._kept.popitem(last=False))
        if evicted:
            evicted.clear()
            gc.collect()  # modules may refer to each other in circles
            memory.trim_allocator()
        return entry

    def _resident_bytes(self) -> int:
        storages: dict[tuple[torch.device, int], int] = {}
        for entry in self._kept.values():
            storages |= entry.storages
        return sum(storages.values())
