import threading
import time

import gradio as gr
import pytest

from ovseg_demo import gallery
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.stages import Progress
from ovseg_demo.ui.session import Answer, Request, Running, follow, tell

PIZZA = str(gallery.FOLDER / "pizza.jpg")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((None, "cat", "m", 0.8), "Choose a photo"),
        ((PIZZA, " ", "m", 0.8), "at least one word"),
        ((PIZZA, "cat", "m", 3.0), "between 0 and 1"),
        (("absent.jpg", "cat", "m", 0.8), "no file"),
    ],
)
def test_what_a_person_entered_is_checked(asked, told):
    with pytest.raises(UserError, match=told):
        Request.read(*asked)


def test_progress_comes_before_the_result(engine):
    request = Request.read(PIZZA, "pizza, horse, bus", "ovseg-sam-mini", 0.8)
    *news, answer = follow(Running(), "someone", lambda listener: request.answer(engine, listener))
    assert all(isinstance(p, Progress) for p in news)
    assert isinstance(answer, Answer)
    assert request.answer(engine).result.timings["Finding masks"] == 0


def endless(listener):
    while True:
        time.sleep(0.01)
        listener(Progress("Work", 0.5))


def test_cancelling_reaches_the_work():
    running = Running()
    news = follow(running, "someone", endless)
    next(news)
    running.cancel("somebody else")
    next(news)
    running.cancel("someone")
    with pytest.raises(Cancelled):
        list(news)


def test_a_new_request_of_a_session_replaces_the_older():
    running = Running()
    older = follow(running, "someone", endless)
    next(older)
    newer = follow(running, "someone", endless)
    next(newer)
    with pytest.raises(Cancelled):
        list(older)
    next(newer)
    newer.close()


def test_leaving_ends_the_work():
    ended = threading.Event()

    def work(listener):
        try:
            endless(listener)
        finally:
            ended.set()

    news = follow(Running(), "someone", work)
    next(news)
    news.close()
    assert ended.wait(2)


def test_failures_are_carried_over():
    def fail(_):
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        list(follow(Running(), "someone", fail))


def test_messages_never_hold_markup_or_tracebacks(caplog):
    told = tell(UserError("bad <b>word</b>"))
    assert isinstance(told, gr.Error)
    assert told.message == "bad &lt;b&gt;word&lt;/b&gt;"
    assert "secret" not in tell(RuntimeError("secret path")).message
    assert "secret path" in caplog.text
    assert "memory" in tell(MemoryError()).message
