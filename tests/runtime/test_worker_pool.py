"""Work side by side: order, errors, and torch's threads afterwards."""

import threading

import pytest
import torch

from ovseg_demo.runtime.worker_pool import worker_pool

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_pieces_are_worked_on_at_once_and_come_back_in_order():
    both = threading.Barrier(2, timeout=30)  # passes only if two are inside together

    def work(piece):
        both.wait()
        return piece.sum().item(), torch.is_inference_mode_enabled(), torch.get_num_threads()

    with worker_pool(CPU) as workers:
        results = workers.map(work, workers.chunks(torch.arange(5)))
    assert results == [(3, True, 1), (7, True, 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_piece_is_raised_and_torch_gets_its_threads_back():
    with pytest.raises(ZeroDivisionError), worker_pool(CPU) as workers:
        workers.map(lambda x: 1 // x, [1, 0])
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_small_batches_make_fewer_pieces():
    with worker_pool(CPU) as workers:
        assert [piece.tolist() for piece in workers.chunks(torch.arange(1))] == [[0]]
        assert workers.chunks(torch.arange(0)) == []


def test_off_the_cpu_the_caller_works_alone():
    with worker_pool(torch.device("meta")) as workers:
        (piece,) = workers.chunks(torch.arange(8))
        assert workers.map(lambda _: threading.current_thread(), [piece]) == [threading.current_thread()]
