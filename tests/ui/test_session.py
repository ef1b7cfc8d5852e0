import threading
import time

import gradio as gr
import pytest

from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.runtime.stages import Progress
from ovseg_demo.ui import gallery
from ovseg_demo.ui.session import (
    CANCELLING,
    Answer,
    Request,
    RunningRequests,
    Superseded,
    error_sentence,
    error_toast,
    follow,
)

PIZZA = str(gallery.FOLDER / "pizza.jpg")


@pytest.mark.parametrize(
    ("photo", "words", "message"),
    [(None, "cat", "Choose a photo"), (PIZZA, " ", "at least one word"), ("absent.jpg", "cat", "no file")],
)
def test_what_a_person_entered_is_checked(photo, words, message):
    with pytest.raises(UserError, match=message):
        Request.read(photo, words, "m", MethodOptions())


def test_progress_comes_before_the_result(engine):
    request = Request.read(PIZZA, "pizza, horse, bus", "ovseg-sam-mini", SamOptions())
    *messages, answer = follow(RunningRequests(), "someone", lambda listener: request.answer(engine, listener))
    assert all(isinstance(p, Progress) for p in messages)
    assert isinstance(answer, Answer)
    assert request.answer(engine).result.timings["Finding masks"] == 0


def endless(listener):
    while True:
        time.sleep(0.01)
        listener(Progress("Work", 0.5))


def test_cancelling_reaches_the_work():
    running = RunningRequests()
    messages = follow(running, "someone", endless)
    next(messages)
    running.cancel("somebody else")
    next(messages)
    running.cancel("someone")
    with pytest.raises(Cancelled):
        list(messages)


def test_a_new_request_of_a_session_replaces_the_older():
    running = RunningRequests()
    older = follow(running, "someone", endless)
    next(older)
    newer = follow(running, "someone", endless, "compare")
    next(newer)
    newer.close()
    assert not running.busy("someone")
    with pytest.raises(Superseded) as superseded:
        list(older)
    assert superseded.value.task == "compare"


def test_a_person_who_cancels_sees_it_at_once():
    running = RunningRequests()
    messages = follow(running, "someone", endless)
    next(messages)
    assert running.busy("someone")
    running.cancel("someone")
    received = []
    with pytest.raises(Cancelled) as cancelled:
        received.extend(messages)
    assert cancelled.type is Cancelled
    assert received.count(CANCELLING) == 1


def test_leaving_ends_the_work():
    ended = threading.Event()

    def work(listener):
        try:
            endless(listener)
        finally:
            ended.set()

    messages = follow(RunningRequests(), "someone", work)
    next(messages)
    messages.close()
    assert ended.wait(30)


def test_failures_are_carried_over():
    def fail(_):
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        list(follow(RunningRequests(), "someone", fail))


def test_messages_never_hold_markup_or_tracebacks(caplog):
    shown = error_toast(UserError("bad <b>word</b>"))
    assert isinstance(shown, gr.Error)
    assert shown.message == "bad &lt;b&gt;word&lt;/b&gt;"
    assert "secret" not in error_sentence(RuntimeError("secret path"))
    assert "secret path" in caplog.text
    assert "memory" in error_sentence(MemoryError())
