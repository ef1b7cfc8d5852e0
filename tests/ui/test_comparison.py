import json
from dataclasses import replace

import numpy as np
import pytest

from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, MethodError, UserError
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.result import Choice, Segmentation
from ovseg_demo.runtime.stages import Progress
from ovseg_demo.ui import comparison, gallery
from ovseg_demo.ui.comparison import Board, MethodUpdate
from ovseg_demo.ui.page_request import PageRequest
from ovseg_demo.ui.session import Answer
from tests.helpers.building import never_built

PIZZA = str(gallery.FOLDER / "pizza.jpg")
THREE = ["first", "second", "third"]


class FakeEngine(Engine):
    """Answers with a result of one label; the second method fails."""

    def __init__(self):
        pass  # no device and no models

    def segment(self, photo, vocabulary, method, options, listener):
        listener(Progress("Working", 0.5))
        if method == "second":
            raise MethodError("no <b>weights</b>")
        return result(photo.pixels.shape[:2], vocabulary.names)


def result(size, names, **known) -> Segmentation:
    labels, scores = np.zeros(size, np.int32), np.zeros(size, np.float32)
    timings = {"Finding masks": 0.0, "Fusing": 0.25}
    return Segmentation(names, labels, scores, labels[None], scores[None], timings=timings, **known)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    fakes = {name: MethodSpec(name, name.title(), "", (), never_built) for name in [*THREE, "fourth", "fifth"]}
    fakes["third"] = replace(fakes["third"], options=SamOptions)
    monkeypatch.setattr(registry, "REGISTRY", fakes)


def requests_of(methods=THREE):
    return comparison.read_requests(PageRequest(PIZZA, "pizza, horse", tuple(methods)))


def test_the_requests_differ_in_their_method_only():
    requests = requests_of()
    assert [request.method for request in requests] == THREE
    assert all(r.photo is requests[0].photo for r in requests)


@pytest.mark.parametrize("chosen", [[], ["first"], ["first", "first"], [*THREE, "fourth", "fifth"]])
def test_two_to_four_methods_are_compared(chosen):
    with pytest.raises(UserError, match="two to four"):
        requests_of(chosen)


def test_a_request_has_the_options_of_its_method():
    moved = {"granularity": None, "proposals": "fast", "rejection": 5}
    requests = comparison.read_requests(PageRequest(PIZZA, "pizza", tuple(THREE), moved))
    wanted = SamOptions(granularity=None, proposals="fast")
    assert [request.options for request in requests] == [MethodOptions(), MethodOptions(), wanted]


def test_when_a_method_fails_the_next_ones_are_still_answered():
    updates = []
    comparison.run_requests(requests_of(), FakeEngine(), updates.append)
    ends = {update.number: update.outcome for update in updates if not isinstance(update.outcome, Progress)}
    assert isinstance(ends[0], Answer)
    assert ends[1] == "no <b>weights</b>"
    assert isinstance(ends[2], Answer)
    assert [u.number for u in updates if isinstance(u.outcome, Progress)] == [0, 1, 2]


def test_cancelling_ends_the_whole_comparison():
    def cancel(update):
        if update.number == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        comparison.run_requests(requests_of(), FakeEngine(), cancel)


def test_the_board_shows_the_state_of_each_method():
    board = Board(requests_of())
    assert [p["state"] for p in board.value()["panels"]] == ["waiting"] * 3
    assert board.record(MethodUpdate(0, Progress("Finding masks", 0.4)))
    assert not board.record(MethodUpdate(0, Progress("Finding masks", 0.42)))
    assert (board.panels[0].state, board.panels[0].line) == ("running", "Finding masks … 42 %")
    comparison.run_requests(requests_of()[:2], FakeEngine(), board.record)
    board.cancel()
    value = json.loads(json.dumps(board.value()))
    assert [p["state"] for p in value["panels"]] == ["done", "failed", "cancelled"]
    assert value["panels"][0]["line"] == "0.2 s · 1 of 2 cached"
    assert value["panels"][0]["detail"] == "Finding masks cached, Fusing 0.25 s"
    assert value["panels"][0]["layer"]["legend"][0]["share"] == 1
    assert value["panels"][1]["line"] == "no <b>weights</b>"
    assert value["names"] == ["pizza", "horse"]


def test_an_automatic_granularity_is_shown_with_its_reason():
    requests = requests_of()
    board = Board(requests)
    chosen = result((4, 4), ("pizza", "horse"), chosen={"granularity": Choice(0.37, "Most stable there.")})
    board.record(MethodUpdate(2, Answer(requests[2], chosen)))
    assert board.panels[2].line.endswith("granularity 0.37")
    assert board.panels[2].reasons == (("Granularity", "Most stable there."),)


def test_a_layer_keeps_its_number_and_a_new_comparison_has_a_higher_one():
    board = Board(requests_of())
    comparison.run_requests(requests_of()[:1], FakeEngine(), board.record)
    again = [board.value()["panels"][0]["layer"]["id"] for _ in range(2)]
    assert again[0] == again[1]
    assert Board(requests_of()).value()["run"] > board.value()["run"]
