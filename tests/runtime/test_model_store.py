"""Loaded models: once a key, side by side, cancellable, bounded in bytes."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from ovseg_demo.errors import Cancelled
from ovseg_demo.runtime import model_store
from ovseg_demo.runtime.model_store import LOADING, ModelStore
from ovseg_demo.runtime.stages import CancelFlag, Progress

MODEL_BYTES = 4000
PATIENCE = 30
"""Seconds after which a test that hangs fails."""


def model() -> nn.Module:
    return nn.Linear(100, 10, bias=False)


class Wrapper:
    """A method: a plain object made of shared parts and weights of its own."""

    def __init__(self, *parts: nn.Module) -> None:
        self.parts = parts
        self.own = {"head": model()}
        self.circle = self  # so that only the garbage collector frees it


class BlockedLoad:
    """A `load` that waits in another thread until the test lets it end; what it returns is `result`."""

    def __init__(self, store: ModelStore, key: str, end: Callable[[], object] = model) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._end = end
        self._pool = ThreadPoolExecutor(1)
        self.result: Future = self._pool.submit(store.get, key, self._load)
        assert self.begun.wait(PATIENCE)

    def _load(self) -> object:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        return self._end()

    def finish(self) -> None:
        self.go_on.set()
        self._pool.shutdown()


@contextmanager
def blocked_load(store: ModelStore, key: str, end: Callable[[], object] = model) -> Iterator[BlockedLoad]:
    load = BlockedLoad(store, key, end)
    try:
        yield load
    finally:
        load.finish()


class Counter:
    """A `load` that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> nn.Module:
        self.calls += 1
        return model()


def test_a_model_is_loaded_once_with_progress():
    store, load, news = ModelStore(10**6), Counter(), []
    first = store.get("a", load, news.append)
    assert news == [Progress(LOADING, 0), Progress(LOADING, 1)]
    assert store.get("a", load, news.append) is first
    assert len(news) == 2
    assert load.calls == 1
    assert store.resident_bytes == MODEL_BYTES


def test_alternating_more_models_than_fit_frees_the_one_unused_for_longest(monkeypatch):
    trimmed = []
    monkeypatch.setattr(model_store.memory, "trim_allocator", lambda: trimmed.append(1))
    store, loads = ModelStore(2 * MODEL_BYTES), {key: Counter() for key in "abc"}
    alive = {}
    for key in "abacbcab":
        alive[key] = weakref.ref(store.get(key, loads[key]))
        assert store.resident_bytes <= store.limit_bytes
        assert sum(reference() is not None for reference in alive.values()) <= 2
    assert {key: reference() is not None for key, reference in alive.items()} == {"a": True, "b": True, "c": False}
    assert {key: load.calls for key, load in loads.items()} == {"a": 2, "b": 3, "c": 1}
    assert len(trimmed) == 4


def test_a_model_in_use_outlives_its_eviction():
    store = ModelStore(MODEL_BYTES)
    used = store.get("a", model)
    store.get("b", model)
    assert store.resident_bytes == MODEL_BYTES
    assert used(torch.ones(1, 100)).shape == (1, 10)
    alive = weakref.ref(used)
    del used
    assert alive() is None


def test_the_latest_model_is_kept_even_when_it_alone_is_too_large():
    store, load = ModelStore(MODEL_BYTES - 1), Counter()
    assert store.get("a", load) is store.get("a", load)
    assert load.calls == 1
    store.get("b", model)
    store.get("a", load)
    assert load.calls == 2


def test_shared_parts_are_loaded_and_counted_once_and_freed_with_their_last_user():
    store, load = ModelStore(4 * MODEL_BYTES), Counter()

    def method() -> Wrapper:
        return Wrapper(store.get("part", load))

    first, second = store.get("first", method), store.get("second", method)
    assert first.parts == second.parts
    assert load.calls == 1
    assert store.resident_bytes == 3 * MODEL_BYTES
    part, first, second = weakref.ref(first.parts[0]), weakref.ref(first), weakref.ref(second)
    store.get("third", lambda: nn.Sequential(model(), model()))
    assert first() is None
    assert second().parts == (part(),)
    store.get("fourth", lambda: nn.Sequential(model(), model()))
    assert second() is None
    assert part() is None
    assert store.resident_bytes == store.limit_bytes
    store.get("second", method)
    assert load.calls == 2


def test_a_part_requested_for_itself_outlives_the_methods_made_of_it():
    store, load = ModelStore(3 * MODEL_BYTES), Counter()
    store.get("method", lambda: Wrapper(store.get("part", load)))
    store.get("part", load)
    store.get("other", lambda: nn.Sequential(model(), model()))
    assert store.resident_bytes == 3 * MODEL_BYTES
    store.get("part", load)
    assert load.calls == 1


def test_parts_of_parts_stay_with_the_whole():
    store, loads = ModelStore(10 * MODEL_BYTES), Counter()
    inner = lambda: Wrapper(store.get("deepest", loads))  # noqa: E731
    store.get("whole", lambda: store.get("inner", inner).own)  # holds the inner part's head only
    gc.collect()
    store.get("deepest", loads)
    assert loads.calls == 1
    assert store.resident_bytes == 2 * MODEL_BYTES


def test_a_model_that_needs_itself_is_an_error_and_no_deadlock():
    store = ModelStore(10**6)
    with pytest.raises(RuntimeError, match="'a' is a part of itself"):
        store.get("a", lambda: store.get("b", lambda: store.get("a", model)))
    assert isinstance(store.get("a", model), nn.Module)


def test_a_loaded_model_never_waits_while_another_loads():
    store = ModelStore(10**6)
    here = store.get("here", model)
    with blocked_load(store, "slow") as slow:
        assert store.get("here", lambda: pytest.fail("loaded again"), lambda _: pytest.fail("waited")) is here
        assert isinstance(store.get("new", model), nn.Module)
        assert not slow.result.done()


def test_requests_for_one_model_load_it_once_and_hear_that_they_wait():
    store, news = ModelStore(10**6), []
    with blocked_load(store, "a") as first:

        def hear(progress: Progress) -> None:
            news.append(progress)
            first.go_on.set()

        second = store.get("a", lambda: pytest.fail("loaded twice"), hear)
        assert second is first.result.result(PATIENCE)
    assert set(news) == {Progress(LOADING, 0, waiting=True), Progress(LOADING, 1)}
    assert news[-1] == Progress(LOADING, 1)


def test_waiting_for_another_request_can_be_cancelled():
    store, flag = ModelStore(10**6), CancelFlag()
    flag.cancel()
    with blocked_load(store, "a") as first:
        with pytest.raises(Cancelled):
            store.get("a", lambda: pytest.fail("loaded twice"), flag)
        assert not first.result.done()
        first.go_on.set()
        assert store.get("a", lambda: pytest.fail("loaded twice")) is first.result.result(PATIENCE)


@pytest.mark.parametrize("error", [ZeroDivisionError(), Cancelled()])
def test_when_the_loading_request_fails_a_waiting_one_takes_over(error):
    store = ModelStore(10**6)

    def fail() -> None:
        raise error

    with blocked_load(store, "a", end=fail) as first:
        loaded = store.get("a", model, lambda _: first.go_on.set())
        with pytest.raises(type(error)):
            first.result.result(PATIENCE)
    assert store.get("a", lambda: pytest.fail("loaded twice")) is loaded


def test_an_error_is_not_kept_and_leaves_no_part():
    store, alive = ModelStore(10**6), []

    def fail() -> None:
        alive.append(weakref.ref(store.get("part", model)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get("a", fail)
    gc.collect()
    assert alive[0]() is None
    assert store.resident_bytes == 0
    assert isinstance(store.get("a", model), nn.Module)


def test_cancelling_reaches_the_loading_of_parts():
    store, flag = ModelStore(10**6), CancelFlag()

    def method() -> Wrapper:
        flag.cancel()
        return Wrapper(store.get("part", lambda: pytest.fail("was not cancelled")))

    with pytest.raises(Cancelled):
        store.get("method", method, flag)


def test_many_threads_that_alternate_more_models_than_fit_get_the_right_ones(monkeypatch):
    monkeypatch.setattr(model_store.gc, "collect", lambda: 0)  # takes a third of a second, and nothing here needs it
    store, alive = ModelStore(4 * MODEL_BYTES), weakref.WeakSet()

    def method(index: int) -> Wrapper:
        made = Wrapper(store.get(("part", index // 2), model))
        made.own["index"], made.circle = index, None
        alive.add(made)
        return made

    def requests(seed: int) -> list[bool]:
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)) % 8
        return [store.get(("method", i), lambda i=i: method(i)).own["index"] == i for i in order.tolist()]

    with ThreadPoolExecutor(4) as pool:
        assert all(all(right) for right in pool.map(requests, range(4), timeout=PATIENCE))
    assert 0 < store.resident_bytes <= store.limit_bytes
    assert 2 <= len(alive) <= 3  # with two parts or one, in four models' bytes
