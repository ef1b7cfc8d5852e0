from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ovseg_demo.errors import MethodError
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.runtime.stages import Progress, ignore_progress
from ovseg_demo.ui import gallery
from ovseg_demo.ui.handlers import Handlers

PIZZA = str(gallery.FOLDER / "pizza.jpg")
SOMEONE = SimpleNamespace(session_hash="someone")
AUTOMATIC = 0.37
NOW = (PIZZA, "pizza, horse")
"""The photo and the words of every result here."""
MASKS, DENSE, SED, TAGCLIP = "ovseg-sam-mini", "mini-dense", "sed-convnext-b", "tagclip-own"
CONTROLS = {
    "granularity": 0.8,
    "automatic": False,
    "proposals": "fast",
    "rejecting": False,
    "best": 8,
    "as_trained": True,
    "marked": [],
    "trusty": True,
}


def controls(**moved) -> tuple:
    """The values of all controls, in order."""
    assert CONTROLS.keys() >= moved.keys()
    return tuple((CONTROLS | moved).values())


class FakeEngine:
    """Counts what it is asked; chooses AUTOMATIC where granularity is."""

    def __init__(self):
        self.asked, self.options = [], []

    def segment(self, photo, vocabulary, method, options, listener=ignore_progress):
        listener(Progress("Working", 0.5))
        self.asked.append((method, options.granularity))
        self.options.append(options)
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
            evidence=(Evidence("Cost map", np.zeros((1, 2, 2), np.float16), (1,)),) if method == SED else (),
        )


@pytest.fixture
def fake():
    return FakeEngine()


@pytest.fixture
def handlers(fake):
    return Handlers(fake)


def shown_after(handlers, automatic):
    *_, last = handlers.segment(*NOW, MASKS, SOMEONE, *controls(automatic=automatic))
    return last[2]


def settle(handlers, granularity, automatic, shown, now=NOW, task="segment"):
    return handlers.settle(*now, granularity, automatic, task, shown, SOMEONE)


def take_over(handlers, granularity, shown, task="segment"):
    return handlers.take_over(*NOW, granularity, task, shown, SOMEONE)


def skipped(output) -> bool:
    return isinstance(output, dict) and set(output) == {"__type__"}


def test_an_automatic_choice_is_told_and_not_asked_for_again(handlers, fake):
    shown = shown_after(handlers, automatic=True)
    assert fake.asked == [(MASKS, None)]
    viewer, kept, chosen, reason = settle(handlers, 0.8, True, shown)
    assert chosen == AUTOMATIC
    assert "It is &lt;i&gt;stable&lt;/i&gt; there." in reason
    assert skipped(viewer)
    assert kept is shown
    settle(handlers, AUTOMATIC, True, kept)
    assert len(fake.asked) == 1


def test_moving_the_slider_switches_automatic_off_and_fuses_again(handlers, fake):
    viewer, shown, automatic, reason = take_over(handlers, 0.4, shown_after(handlers, automatic=True))
    assert fake.asked[-1] == (MASKS, 0.4)
    assert viewer["planes"]
    assert viewer["photo"] is None
    assert shown.request.options.granularity == 0.4
    assert automatic is False
    assert reason == ""


def test_switching_automatic_on_fuses_again(handlers, fake):
    _, shown, chosen, reason = settle(handlers, 0.8, True, shown_after(handlers, automatic=False))
    assert fake.asked[-1] == (MASKS, None)
    assert shown.granularity == chosen == AUTOMATIC
    assert reason


def test_nothing_is_settled_before_there_is_a_result(handlers, fake):
    viewer, shown, chosen, reason = settle(handlers, 0.8, True, None)
    assert all(map(skipped, (viewer, shown, reason)))
    assert chosen is None
    _, _, automatic, _ = take_over(handlers, 0.8, None)
    assert automatic is False
    assert fake.asked == []


@pytest.mark.parametrize(
    ("now", "task"),
    [(NOW, "compare"), (("another.jpg", NOW[1]), "segment"), ((PIZZA, "bus"), "segment"), ((None, NOW[1]), "segment")],
)
def test_a_result_that_is_hidden_or_of_another_photo_is_left_alone(handlers, fake, now, task):
    shown = shown_after(handlers, automatic=False)
    viewer, kept, chosen, _ = settle(handlers, 0.8, True, shown, now, task)
    assert skipped(viewer)
    assert skipped(kept)
    assert chosen is None
    assert fake.asked == [(MASKS, 0.8)]


def test_moving_the_slider_while_comparing_only_ends_automatic(handlers, fake):
    viewer, _, automatic, _ = take_over(handlers, 0.4, shown_after(handlers, automatic=True), "compare")
    assert skipped(viewer)
    assert automatic is False
    assert fake.asked == [(MASKS, None)]


def test_what_has_changed_since_a_result_is_told_of_each_task(handlers):
    shown = shown_after(handlers, automatic=False)
    compared = replace(shown.asked, methods=(MASKS, DENSE))

    def told(photo=PIZZA, words=NOW[1], method=MASKS, chosen=(MASKS, DENSE), granularity=0.8, automatic=False):
        return handlers.outdated(
            photo, words, method, chosen, shown, compared, *controls(granularity=granularity, automatic=automatic)
        )

    assert told() == ""
    assert "Press Segment to apply the settings" in told(method=DENSE)
    assert "Compare" not in told(method=DENSE)
    assert "Press Compare to apply the settings" in told(granularity=0.3)
    assert told("another.jpg").count("for this photo") == 2
    assert "for these words" in told(words="bus")
    assert "settings" in told(automatic=True)
    assert handlers.outdated(None, "", DENSE, [], None, None, *controls(automatic=True)) == ""


def test_a_comparison_is_sent_piece_by_piece(handlers, monkeypatch):
    entries = {name: SimpleNamespace(title=name.title(), uses=()) for name in ("one", "fails", "two")}
    monkeypatch.setattr("ovseg_demo.methods.registry.get", entries.__getitem__)
    sent = list(handlers.compare(PIZZA, "pizza, horse", list(entries), SOMEONE, *controls()))
    states = [[panel["state"] for panel in value["panels"]] for _, value, _, _ in sent]
    assert states[0] == ["waiting"] * 3
    assert ["done", "running", "waiting"] in states
    assert states[-1] == ["done", "failed", "done"]
    assert any("One: Working" in status for status, *_ in sent)
    status, value, compared, button = sent[-1]
    assert compared.methods == tuple(entries)
    assert "Done in" in status
    assert status.count("<li") == 3
    assert value["panels"][1]["line"] == "it <b>fails</b>"
    assert button.interactive is False


def test_a_comparison_of_nothing_is_one_sentence(handlers):
    news = handlers.compare(PIZZA, "pizza", ["one"], SOMEONE, *controls())
    _, value, compared, _ = next(news)
    assert skipped(value)
    assert skipped(compared)
    with pytest.raises(Exception, match="two to four"):
        next(news)


@pytest.mark.parametrize(("task", "told"), [("segment", False), ("compare", True)])
def test_a_request_that_another_replaces_leaves_its_status_to_it_or_says_that_it_ended(handlers, task, told):
    news = handlers.segment(*NOW, MASKS, SOMEONE, *controls())
    next(news)
    asked = {"segment": MASKS, "compare": [MASKS, DENSE]}[task]
    newer = getattr(handlers, task)(*NOW, asked, SOMEONE, *controls())
    next(newer)
    *_, (status, *others) = news
    newer.close()
    assert skipped(status) != told
    assert all(map(skipped, others))
    if told:
        assert "Cancelled" in status


@pytest.mark.parametrize(
    ("method", "moved", "option", "wanted"),
    [
        (SED, {"rejecting": True, "best": 5}, "rejection", (5, 5, 5)),
        (SED, {"rejecting": False, "best": 5}, "rejection", None),
        (MASKS, {"rejecting": True}, "rejection", None),
        (TAGCLIP, {"as_trained": False, "marked": ["horse", "gone"]}, "seen", ("horse",)),
        (TAGCLIP, {"as_trained": False, "marked": None}, "seen", ()),
        (TAGCLIP, {"as_trained": True, "marked": ["horse"]}, "seen", None),
        (MASKS, {"as_trained": False, "marked": ["horse"]}, "seen", None),
        (TAGCLIP, {"trusty": False}, "trusty", False),
        (MASKS, {"trusty": False}, "trusty", True),
        (MASKS, {"proposals": "thorough"}, "proposals", "thorough"),
    ],
)
def test_a_setting_is_for_the_methods_that_use_it(handlers, fake, method, moved, option, wanted):
    list(handlers.segment(*NOW, method, SOMEONE, *controls(**moved)))
    assert getattr(fake.options[0], option) == wanted


def test_another_setting_is_another_result(handlers):
    def told(method, before, now):
        *_, (_, _, shown, _, _) = handlers.segment(*NOW, method, SOMEONE, *controls(**before))
        sentence = handlers.outdated(*NOW, method, [], shown, None, *controls(**now))
        assert sentence == "" or "to apply the settings" in sentence
        return bool(sentence)

    rejecting, marked = {"rejecting": True, "best": 5}, {"as_trained": False, "marked": ["horse"]}
    assert not told(SED, rejecting, rejecting)
    assert told(SED, rejecting, {**rejecting, "best": 6})
    assert told(SED, rejecting, {"best": 5})
    assert not told(SED, {}, marked)
    assert not told(TAGCLIP, marked, marked)
    assert not told(TAGCLIP, {}, {"marked": ["horse"]})
    assert told(TAGCLIP, marked, {**marked, "marked": ["pizza", "horse"]})
    assert told(TAGCLIP, marked, {**marked, "as_trained": True})
    assert told(TAGCLIP, {}, {"trusty": False})


def test_maps_are_offered_with_a_result_and_drawn_when_asked_for(handlers, fake):
    *_, (_, _, shown, offered, _) = handlers.segment(*NOW, SED, SOMEONE, *controls())
    assert offered["words"] == [[1, "horse"]]
    looked = handlers.look(shown, SimpleNamespace(id=offered["id"], word=1))
    assert (looked["id"], looked["word"]) == (offered["id"], 1)
    assert [panel["title"] for panel in looked["panels"]] == ["Cost map"]
    *_, (_, _, _, offered, _) = handlers.segment(*NOW, MASKS, SOMEONE, *controls())
    assert offered is None


def test_a_forgotten_result_is_one_sentence(handlers):
    for ask in (lambda: handlers.look(None, SimpleNamespace(id=1, word=1)), lambda: handlers.file("json", None)):
        with pytest.raises(Exception, match="results are forgotten after an hour"):
            ask()
