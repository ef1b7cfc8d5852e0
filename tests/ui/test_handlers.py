from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from ovseg_demo.engine import Engine
from ovseg_demo.errors import MethodError
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.methods.sed.options import SEDOptions
from ovseg_demo.methods.tagclip.options import TagCLIPOptions
from ovseg_demo.result import Choice, Evidence, Segmentation
from ovseg_demo.runtime.stages import Progress, ignore_progress
from ovseg_demo.ui import gallery
from ovseg_demo.ui.handlers import Handlers
from ovseg_demo.ui.page_request import PageRequest
from tests.helpers.building import never_built

PIZZA = str(gallery.FOLDER / "pizza.jpg")
SOMEONE = "someone"
AUTOMATIC = 0.37
NOW = (PIZZA, "pizza, horse")
"""The photo and the words of every result here."""
MASKS, DENSE, SED, TAGCLIP = "ovseg-sam-mini", "mini-dense", "sed-convnext-b", "tagclip-own"
VALUES = {"granularity": 0.8, "proposals": "fast", "rejection": None, "seen": None, "trusty": True}
LIVE = ["granularity"]


def page(*methods: str, photo: str | None = PIZZA, words: str = NOW[1], **moved) -> PageRequest:
    """What the controls say: VALUES but for some."""
    assert VALUES.keys() >= moved.keys()
    return PageRequest(photo, words, methods, VALUES | moved)


class FakeEngine(Engine):
    """Records its requests; chooses AUTOMATIC where granularity is left to the method."""

    def __init__(self):
        self.requests, self.options = [], []

    def segment(self, photo, vocabulary, method, options, listener=ignore_progress):
        listener(Progress("Working", 0.5))
        granularity = getattr(options, "granularity", 0.8)
        self.requests.append((method, granularity))
        self.options.append(options)
        if method == "fails":
            raise MethodError("it <b>fails</b>")
        plane = np.zeros(photo.pixels.shape[:2], np.float32)
        chosen = {"granularity": Choice(AUTOMATIC, "It is <i>stable</i> there.")} if granularity is None else {}
        return Segmentation(
            vocabulary.names,
            plane.astype(np.int32),
            plane,
            plane[None].astype(np.int32),
            plane[None],
            chosen,
            evidence=(Evidence("Cost map", np.zeros((1, 2, 2), np.float16), (1,)),) if method == SED else (),
        )


@pytest.fixture
def fake():
    return FakeEngine()


@pytest.fixture
def handlers(fake):
    return Handlers(fake)


def shown_after(handlers, automatic):
    *_, last = handlers.segment(page(MASKS, granularity=None if automatic else 0.8), SOMEONE)
    return last[2]


def update_live(handlers, granularity, shown, now=NOW, task="segment"):
    """`granularity` is None where the switch leaves it to the method."""
    photo, words = now
    return handlers.update_live(
        page(MASKS, photo=photo, words=words, granularity=granularity), LIVE, task, shown, SOMEONE
    )


def skipped(output) -> bool:
    return isinstance(output, dict) and set(output) == {"__type__"}


def test_an_automatic_choice_is_shown_and_not_computed_again(handlers, fake):
    shown = shown_after(handlers, automatic=True)
    assert fake.requests == [(MASKS, None)]
    update = update_live(handlers, None, shown)
    assert update.chosen == {"granularity": Choice(AUTOMATIC, "It is <i>stable</i> there.")}
    assert skipped(update.viewer)
    assert update.shown is shown
    assert len(fake.requests) == 1


def test_moving_a_live_slider_switches_automatic_off_and_fuses_again(handlers, fake):
    update = update_live(handlers, 0.4, shown_after(handlers, automatic=True))
    assert fake.requests[-1] == (MASKS, 0.4)
    assert update.viewer["planes"]
    assert update.viewer["photo"] is None
    assert update.shown.request.options.granularity == 0.4
    assert update.chosen == {}


def test_switching_automatic_on_fuses_again(handlers, fake):
    update = update_live(handlers, None, shown_after(handlers, automatic=False))
    assert fake.requests[-1] == (MASKS, None)
    assert update.shown.chosen == update.chosen
    assert update.chosen["granularity"].value == AUTOMATIC


def test_nothing_is_updated_before_there_is_a_result(handlers, fake):
    update = update_live(handlers, None, None)
    assert skipped(update.viewer)
    assert skipped(update.shown)
    assert update.chosen is None
    assert fake.requests == []


@pytest.mark.parametrize(
    ("now", "task"),
    [(NOW, "compare"), (("another.jpg", NOW[1]), "segment"), ((PIZZA, "bus"), "segment"), ((None, NOW[1]), "segment")],
)
def test_a_result_that_is_hidden_or_of_another_photo_is_left_alone(handlers, fake, now, task):
    update = update_live(handlers, None, shown_after(handlers, automatic=False), now, task)
    assert skipped(update.viewer)
    assert skipped(update.shown)
    assert update.chosen is None
    assert fake.requests == [(MASKS, 0.8)]


def test_a_control_that_is_not_live_updates_nothing(handlers, fake):
    shown = shown_after(handlers, automatic=False)
    update = handlers.update_live(page(MASKS, proposals="thorough"), LIVE, "segment", shown, SOMEONE)
    assert skipped(update.viewer)
    assert len(fake.requests) == 1


def test_each_task_says_what_has_changed_since_its_result(handlers):
    shown = shown_after(handlers, automatic=False)
    compared = replace(shown.page, methods=(MASKS, DENSE))

    def sentences(photo=PIZZA, words=NOW[1], method=MASKS, granularity: float | None = 0.8):
        now = page(method, photo=photo, words=words, granularity=granularity)
        return handlers.outdated(now, (MASKS, DENSE), shown, compared)

    assert sentences() == ""
    assert "Press Segment to apply the settings" in sentences(method=DENSE)
    assert "Compare" not in sentences(method=DENSE)
    assert "Press Compare to apply the settings" in sentences(granularity=0.3)
    assert sentences("another.jpg").count("for this photo") == 2
    assert "for these words" in sentences(words="bus")
    assert "settings" in sentences(granularity=None)
    assert handlers.outdated(page(DENSE, photo=None, words=""), [], None, None) == ""


def test_a_comparison_is_sent_piece_by_piece(handlers, monkeypatch):
    entries = {name: MethodSpec(name, name.title(), "", (), never_built) for name in ("one", "fails", "two")}
    monkeypatch.setattr("ovseg_demo.methods.registry.REGISTRY", entries)
    sent = list(handlers.compare(page(*entries), SOMEONE))
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
    news = handlers.compare(page(MASKS), SOMEONE)
    _, value, compared, _ = next(news)
    assert skipped(value)
    assert skipped(compared)
    with pytest.raises(Exception, match="two to four"):
        next(news)


@pytest.mark.parametrize(("task", "says_so"), [("segment", False), ("compare", True)])
def test_a_request_that_another_replaces_leaves_its_status_to_it_or_says_that_it_ended(handlers, task, says_so):
    news = handlers.segment(page(MASKS), SOMEONE)
    next(news)
    request = {"segment": page(MASKS), "compare": page(MASKS, DENSE)}[task]
    newer = getattr(handlers, task)(request, SOMEONE)
    next(newer)
    *_, (status, *others) = news
    newer.close()
    assert skipped(status) != says_so
    assert all(map(skipped, others))
    if says_so:
        assert "Cancelled" in status


@pytest.mark.parametrize(
    ("method", "moved", "wanted"),
    [
        (SED, {"rejection": 5}, SEDOptions(rejection=(5, 5, 5))),
        (SED, {}, SEDOptions()),
        (MASKS, {"rejection": 5, "seen": ("horse",), "trusty": False}, SamOptions(proposals="fast")),
        (TAGCLIP, {"seen": ("horse",)}, TagCLIPOptions(seen=("horse",))),
        (TAGCLIP, {"trusty": False}, TagCLIPOptions(trusty=False)),
        (MASKS, {"proposals": "thorough"}, SamOptions(proposals="thorough")),
    ],
)
def test_a_value_is_for_the_methods_that_have_the_option(handlers, fake, method, moved, wanted):
    list(handlers.segment(page(method, **moved), SOMEONE))
    assert fake.options[0] == wanted


def test_another_value_is_another_result(handlers):
    def is_outdated(method, before, now):
        *_, (_, _, shown, _, _) = handlers.segment(page(method, **before), SOMEONE)
        sentence = handlers.outdated(page(method, **now), [], shown, None)
        assert sentence == "" or "to apply the settings" in sentence
        return bool(sentence)

    assert not is_outdated(SED, {"rejection": 5}, {"rejection": 5})
    assert is_outdated(SED, {"rejection": 5}, {"rejection": 6})
    assert is_outdated(SED, {"rejection": 5}, {})
    assert not is_outdated(SED, {}, {"seen": ("horse",)})
    assert not is_outdated(TAGCLIP, {"seen": ("horse",)}, {"seen": ("horse",)})
    assert is_outdated(TAGCLIP, {"seen": ("horse",)}, {"seen": ("pizza", "horse")})
    assert is_outdated(TAGCLIP, {"seen": ("horse",)}, {"seen": None})
    assert is_outdated(TAGCLIP, {}, {"trusty": False})


def test_heat_maps_are_listed_with_a_result_and_drawn_on_request(handlers, fake):
    *_, (_, _, shown, available, _) = handlers.segment(page(SED), SOMEONE)
    assert available["words"] == [[1, "horse"]]
    drawn = handlers.draw_heat_maps(shown, SimpleNamespace(id=available["id"], word=1))
    assert (drawn["id"], drawn["word"]) == (available["id"], 1)
    assert [panel["title"] for panel in drawn["panels"]] == ["Cost map"]
    *_, (_, _, _, available, _) = handlers.segment(page(MASKS), SOMEONE)
    assert available is None


def test_a_forgotten_result_is_one_sentence(handlers):
    for ask in (
        lambda: handlers.draw_heat_maps(None, SimpleNamespace(id=1, word=1)),
        lambda: handlers.write_file("json", None),
    ):
        with pytest.raises(Exception, match="results are forgotten after an hour"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (True, 'Options must be one JSON object, for example {"granularity": 0.5}; got True.'),
        ("much", "Options must be one JSON object"),
        ([1], "Options must be one JSON object"),
        ({"granularity": 3}, "Granularity must lie between 0 and 1; got 3."),
        ({"granularity": "much"}, "must be a number between 0 and 1, or auto; got 'much'"),
        ({"proposals": "perfect"}, "one of fast, balanced, thorough; got 'perfect'"),
        ({"rejection": 8}, "ovseg-sam-mini has no option 'rejection'; these have it: sed-mini"),
        ({"colour": 1}, "ovseg-sam-mini has no option 'colour'; no method has it."),
    ],
)
def test_options_of_the_api_are_refused_by_name(handlers, options, message):
    with pytest.raises(gr.Error) as refused:
        handlers.api_segment(PIZZA, NOW[1], MASKS, options)
    assert message in refused.value.message


@pytest.mark.parametrize("options", [None, "", {}, "{}", {"granularity": "0.8"}])
def test_options_of_the_api_may_be_left_out_or_be_text(handlers, fake, options):
    with pytest.raises(gr.Error):
        handlers.api_segment(None, NOW[1], MASKS, options)  # there is no photo
    handlers.api_segment(PIZZA, NOW[1], MASKS, options)
    assert fake.options == [SamOptions()]


def test_the_positional_calls_of_earlier_versions_are_answered(handlers, fake):
    handlers.api_segment(PIZZA, NOW[1], MASKS, 0.3)
    handlers.api_segment(PIZZA, NOW[1], MASKS, 0.3, "fast")
    assert fake.options == [SamOptions(granularity=0.3), SamOptions(granularity=0.3, proposals="fast")]


def test_the_api_lists_methods_with_the_schema_of_their_options(handlers):
    listed = {entry["id"]: entry for entry in handlers.api_methods()}
    assert listed[MASKS]["available"] is True
    assert listed[MASKS]["options"]["properties"]["granularity"]["default"] == 0.8
    assert listed["zegclip-voc"]["options"]["properties"].keys() == {"unlabelled", "seen", "recipe"}
