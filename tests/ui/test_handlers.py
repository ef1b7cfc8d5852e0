from types import SimpleNamespace

import numpy as np
import pytest

from ovseg_demo import gallery
from ovseg_demo.errors import MethodError
from ovseg_demo.result import Segmentation
from ovseg_demo.stages import Progress
from ovseg_demo.ui.handlers import Handlers

PIZZA = str(gallery.FOLDER / "pizza.jpg")
SOMEONE = SimpleNamespace(session_hash="someone")
AUTOMATIC = 0.37


class FakeEngine:
    """Counts what it is asked; chooses AUTOMATIC where granularity is."""

    def __init__(self):
        self.asked = []

    def segment(self, photo, vocabulary, method, options, listener):
        listener(Progress("Working", 0.5))
        self.asked.append((method, options.granularity))
        if method == "fails":
            raise MethodError("it <b>fails</b>")
        plane = np.zeros(photo.pixels.shape[:2], np.float32)
        chosen = options.granularity is None
        return Segmentation(
            vocabulary.names,
            plane.astype(np.int32),
            plane,
            plane[None].astype(np.int32),
            plane[None],
            AUTOMATIC if chosen else options.granularity,
            "It is <i>stable</i> there." if chosen else "",
        )


@pytest.fixture
def fake():
    return FakeEngine()


@pytest.fixture
def handlers(fake):
    return Handlers(fake)


def shown_after(handlers, automatic):
    *_, last = handlers.segment(PIZZA, "pizza, horse", "any", 0.8, automatic, "fast", SOMEONE)
    return last[2]


def skipped(output) -> bool:
    return isinstance(output, dict) and set(output) == {"__type__"}


def test_an_automatic_choice_moves_the_slider_and_is_not_asked_for_again(handlers, fake):
    shown = shown_after(handlers, automatic=True)
    assert fake.asked == [("any", None)]
    viewer, kept, slider, reason = handlers.settle(0.8, True, shown, SOMEONE)
    assert slider.value == AUTOMATIC
    assert "It is &lt;i&gt;stable&lt;/i&gt; there." in reason
    assert skipped(viewer)
    assert kept is shown
    handlers.settle(AUTOMATIC, True, kept, SOMEONE)
    assert len(fake.asked) == 1


def test_moving_the_slider_switches_automatic_off_and_fuses_again(handlers, fake):
    viewer, shown, automatic, reason = handlers.take_over(0.4, shown_after(handlers, automatic=True), SOMEONE)
    assert fake.asked[-1] == ("any", 0.4)
    assert viewer["planes"]
    assert viewer["photo"] is None
    assert shown.request.options.granularity == 0.4
    assert automatic is False
    assert reason == ""


def test_switching_automatic_on_fuses_again(handlers, fake):
    _, shown, slider, reason = handlers.settle(0.8, True, shown_after(handlers, automatic=False), SOMEONE)
    assert fake.asked[-1] == ("any", None)
    assert shown.granularity == slider.value == AUTOMATIC
    assert reason


def test_nothing_is_settled_before_there_is_a_result(handlers, fake):
    assert all(map(skipped, handlers.settle(0.8, True, None, SOMEONE)))
    _, _, automatic, _ = handlers.take_over(0.8, None, SOMEONE)
    assert automatic is False
    assert fake.asked == []


def test_a_comparison_is_sent_piece_by_piece(handlers, monkeypatch):
    entries = {name: SimpleNamespace(title=name.title()) for name in ("one", "fails", "two")}
    monkeypatch.setattr("ovseg_demo.methods.get", entries.__getitem__)
    sent = list(handlers.compare(PIZZA, "pizza, horse", list(entries), 0.8, False, "fast", SOMEONE))
    states = [[panel["state"] for panel in value["panels"]] for _, value, _ in sent]
    assert states[0] == ["waiting"] * 3
    assert ["done", "running", "waiting"] in states
    assert states[-1] == ["done", "failed", "done"]
    assert any("One: Working" in status for status, _, _ in sent)
    status, value, button = sent[-1]
    assert "Done in" in status
    assert status.count("<li") == 3
    assert value["panels"][1]["line"] == "it <b>fails</b>"
    assert button.interactive is False


def test_a_comparison_of_nothing_is_one_sentence(handlers):
    news = handlers.compare(PIZZA, "pizza", ["one"], 0.8, False, "fast", SOMEONE)
    _, value, _ = next(news)
    assert skipped(value)
    with pytest.raises(Exception, match="two to four"):
        next(news)
