"""How the engine loads methods: nobody waits for another's weights, and more models than fit take turns."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ovseg_demo import image, vocabulary
from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled
from ovseg_demo.methods import registry
from ovseg_demo.runtime.model_store import ModelStore
from ovseg_demo.runtime.stages import CancelFlag
from tests.helpers.toy_method import TOY, Toy

WAIT = 20
"""Seconds after which a thread that should have ended is a failure."""


class Slow:
    """A method whose weights take until `go_on` is set to load."""

    def __init__(self, monkeypatch):
        self.begun, self.go_on, self.loads = threading.Event(), threading.Event(), 0
        monkeypatch.setitem(registry.REGISTRY, "slow", replace(TOY, id="slow", build=self.build))

    def build(self, models):
        self.loads += 1
        self.begun.set()
        assert self.go_on.wait(WAIT)
        return Toy()


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, TOY.id, TOY)
    return Slow(monkeypatch)


@pytest.fixture
def photo() -> image.Photo:
    return image.from_array(np.zeros((8, 8, 3), np.uint8))


def started(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_request_for_another_method_is_answered_while_weights_load(slow, photo):
    engine, words = Engine("cpu"), vocabulary.parse("cat, dog")
    loading = started(lambda: engine.segment(photo, words, "slow"))
    assert slow.begun.wait(WAIT)
    assert engine.segment(photo, words, "toy").names == ("cat", "dog")
    assert loading.is_alive()
    slow.go_on.set()
    loading.join(WAIT)
    assert not loading.is_alive()


def test_waiting_for_weights_that_another_request_loads_can_be_cancelled(slow, photo):
    engine, words, ended = Engine("cpu"), vocabulary.parse("cat"), []
    first = started(lambda: ended.append(engine.segment(photo, words, "slow")))
    assert slow.begun.wait(WAIT)
    waits = threading.Event()
    flag = CancelFlag(lambda progress: waits.set() if progress.waiting else None)

    def wait_and_give_up():
        try:
            engine.segment(photo, words, "slow", listener=flag)
        except Cancelled as error:
            ended.append(error)

    second = started(wait_and_give_up)
    assert waits.wait(WAIT)
    flag.cancel()
    second.join(WAIT)
    assert [type(end) for end in ended] == [Cancelled]
    slow.go_on.set()
    first.join(WAIT)
    assert len(ended) == 2
    assert slow.loads == 1


def test_more_methods_than_fit_take_turns_and_are_freed(monkeypatch, photo):
    models: dict[str, list[weakref.ref]] = {"first": [], "second": []}

    class Heavy(Toy):
        def __init__(self):
            self.tower = nn.Linear(1000, 1000)

    def build(name):
        method = Heavy()
        models[name].append(weakref.ref(method.tower))
        return method

    for name in models:
        monkeypatch.setitem(registry.REGISTRY, name, replace(TOY, id=name, build=lambda _, name=name: build(name)))
    store = ModelStore(limit_bytes=6 * 10**6)  # one of them has 4 MB
    engine, words = Engine("cpu", store=store), vocabulary.parse("cat")
    for _ in range(3):
        for name in models:
            assert engine.segment(photo, words, name).names == ("cat",)
            gc.collect()
            alive = [ref for refs in models.values() for ref in refs if ref() is not None]
            assert len(alive) == 1
            assert store.resident_bytes <= store.limit_bytes
    assert [len(refs) for refs in models.values()] == [3, 3]


def test_the_bundled_methods_share_the_mini_model():
    store = ModelStore(10**10)
    engine = Engine("cpu", store=store)
    engine.load("mini-dense")
    alone = store.resident_bytes
    engine.load("sed-mini")
    assert store.resident_bytes < 1.2 * alone  # the decoder is small; a second mini model would double it
    assert torch.is_inference_mode_enabled() is False
