import threading
import time

import numpy as np
import pytest

from ovseg_demo.errors import Cancelled
from ovseg_demo.runtime.stages import Cache, CancelFlag, Progress, SerialWorker, Stages, ignore_progress


def stages(cache: Cache, listener=ignore_progress, worker: SerialWorker | None = None) -> Stages:
    return Stages(cache, worker or SerialWorker(), listener)


def block(size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


def test_the_cache_is_bounded_in_bytes_and_evicts_the_least_recent():
    cache = Cache(100)
    cache.put("a", block(40))
    cache.put("b", block(40))
    assert cache.get("a") is not None
    cache.put("c", block(40))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.nbytes == 80


def test_what_exceeds_the_cache_is_not_kept():
    cache = Cache(100)
    cache.put("a", block(40))
    cache.put("huge", block(101))
    assert cache.get("huge") is None
    assert cache.get("a") is not None


def test_a_cached_stage_is_computed_once_and_reported():
    cache, news, made = Cache(1000), [], []

    def make(report):
        made.append(1)
        report(0.5)
        return block(10)

    for _ in range(2):
        stages(cache, news.append).cached("Work", "key", make)
    assert len(made) == 1
    assert news == [
        Progress("Work", 0),
        Progress("Work", 0.5),
        Progress("Work", 1),
        Progress("Work", 1, cached=True),
    ]


def test_an_empty_result_is_cached_too():
    cache = Cache(1000)
    stages(cache).cached("Work", "key", lambda _: block(0))
    stages(cache).cached("Work", "key", lambda _: pytest.fail("made again"))


def test_a_cached_batch_computes_only_what_is_missing():
    cache, asked = Cache(1000), []

    def words(*names):
        def make(missing):
            asked.append([names[i] for i in missing])
            return [np.full(1, ord(names[i])) for i in missing]

        return [int(v[0]) for v in stages(cache).cached_batch("Words", names, make)]

    assert words("a", "b") == [97, 98]
    assert words("b", "c", "a") == [98, 99, 97]
    assert words("a", "c") == [97, 99]
    assert asked == [["a", "b"], ["c"]]


def test_a_failure_frees_the_worker_and_caches_nothing():
    cache, worker = Cache(1000), SerialWorker()
    with pytest.raises(ZeroDivisionError):
        stages(cache, worker=worker).cached("Work", "key", lambda _: 1 / 0)
    assert stages(cache, worker=worker).cached("Work", "key", lambda _: block(3)).size == 3


def test_cancelling_ends_work_and_waiting():
    cache, worker = Cache(1000), SerialWorker()
    flag = CancelFlag()

    def endless(report):
        for _ in range(1000):
            time.sleep(0.01)
            report(0.1)
        pytest.fail("was not cancelled")

    def attempt(listener, errors):
        try:
            stages(cache, listener, worker).cached("Work", "key", endless)
        except Cancelled as error:
            errors.append(error)

    errors: list[Exception] = []
    waiting = CancelFlag()
    threads = [threading.Thread(target=attempt, args=(f, errors)) for f in (flag, waiting)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    waiting.cancel()
    threads[1].join(30)
    assert len(errors) == 1
    flag.cancel()
    threads[0].join(30)
    assert len(errors) == 2


def test_waiting_is_reported_and_then_over():
    cache, worker, news = Cache(1000), SerialWorker(), []
    inside, enough = threading.Event(), threading.Event()

    def slow(_):
        inside.set()
        enough.wait(30)
        return block(1)

    def hear(progress):
        news.append(progress)
        if progress.waiting:
            enough.set()

    first = threading.Thread(target=lambda: stages(cache, worker=worker).cached("Work", "a", slow))
    first.start()
    inside.wait(30)
    stages(cache, hear, worker).cached("Work", "b", lambda _: block(1))
    first.join()
    assert Progress("Work", 0, waiting=True) in news
    assert news[-1] == Progress("Work", 1)


def test_fast_results_come_in_batches_and_can_be_cancelled():
    cache, flag = Cache(10**6), CancelFlag()

    def make(missing):
        assert len(missing) <= 64
        flag.cancel()
        return [block(1) for _ in missing]

    with pytest.raises(Cancelled):
        stages(cache, flag).cached_batch("Words", range(1000), make)
    assert cache.nbytes == 64


def test_the_worker_computes_one_stage_at_a_time():
    cache, worker = Cache(1000), SerialWorker()
    inside, most = [], []

    def make(_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.03)
        inside.pop()
        return block(1)

    threads = [
        threading.Thread(target=lambda key=key: stages(cache, worker=worker).cached("Work", key, make)) for key in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_slow_results_are_computed_by_the_worker_in_small_batches():
    worker, begun, go_on, batches = SerialWorker(), threading.Event(), threading.Event(), []

    def other():
        begun.set()
        return go_on.wait(10)

    def make(indices):
        batches.append((len(indices), go_on.is_set(), threading.current_thread()))
        return [block(1) for _ in indices]

    busy = threading.Thread(target=lambda: worker.run(other, lambda: None))
    busy.start()
    assert begun.wait(10)
    news = []

    def listener(progress):
        news.append(progress)
        if progress.waiting:
            go_on.set()

    stages(Cache(1000), listener, worker).cached_batch("Words", range(20), make, exclusive=True)
    busy.join()
    assert [size for size, _, _ in batches] == [8, 8, 4]
    assert all(after for _, after, _ in batches)
    assert {thread for _, _, thread in batches} != {threading.current_thread()}
    assert Progress("Words", 0, waiting=True) in news
