import threading

import pytest

from ovseg_demo.errors import Cancelled
from ovseg_demo.memory_budget import MemoryBudget


def test_what_does_not_fit_waits_and_later_work_does_not_overtake_it():
    budget, order, waits = MemoryBudget(10), [], threading.Semaphore(0)

    def work(name, needed):
        with budget.held(needed, waits.release):
            order.append(name)

    with budget.held(6):
        large = threading.Thread(target=work, args=("large", 99))
        large.start()
        assert waits.acquire(timeout=5)
        small = threading.Thread(target=work, args=("small", 1))
        small.start()
        assert order == []
    large.join(5)
    small.join(5)
    assert order == ["large", "small"]
    assert budget.free_bytes == 10


def test_work_that_is_cancelled_while_it_waits_leaves_the_line():
    def cancel():
        raise Cancelled

    budget = MemoryBudget(10)
    with budget.held(6):
        with pytest.raises(Cancelled), budget.held(6, cancel):
            pass
        with budget.held(4):
            assert budget.free_bytes == 0
