from types import SimpleNamespace

import pytest

from ovseg_demo.methods import registry
from ovseg_demo.runtime.stages import Progress
from ovseg_demo.ui import fragments
from ovseg_demo.ui.panel import Panel

ATTACK = "<img src=x onerror=alert(1)>"


def test_chips_show_what_was_understood():
    shown = fragments.chips("cat, sofa|couch，Cat")
    assert shown.count("class='chip'") == 2
    assert "couch" in shown
    assert "Repeated and counted once: Cat." in shown


def test_an_unusable_vocabulary_says_why():
    assert "limit is 1000" in fragments.chips(",".join(map(str, range(5000))))
    assert "at least one word" in fragments.chips(",")
    assert "Part classes" in fragments.chips(" ")


def test_many_chips_are_counted():
    assert "and 960 more" in fragments.chips(",".join(map(str, range(1000))))


@pytest.mark.parametrize(
    "shown",
    [
        lambda: fragments.chips(f"{ATTACK}, sofa|{ATTACK}x"),
        lambda: fragments.chips(ATTACK + "a" * 200),
        lambda: fragments.status([Progress(ATTACK, 0.5), Progress(ATTACK, 1)]),
    ],
)
def test_markup_is_never_rendered(shown):
    assert "<img" not in shown()
    assert "&lt;img" in shown()


def test_status_shows_progress_and_what_was_cached():
    shown = fragments.status([Progress("Masks", 1, cached=True), Progress("Regions", 0.42)])
    assert "aria-valuenow='42'" in shown
    assert "Masks <small>cached</small>" in shown
    waiting = fragments.status([Progress("Masks", 0, waiting=True)])
    assert "Masks … waiting for another photo" in waiting
    assert "waiting" not in fragments.status([Progress("Masks", 0.1)])
    assert "Cancelled" in fragments.status((), "cancelled")
    assert "Done in 1.5 s" in fragments.finished([Progress("Masks", 1)], 1.5)


def test_absent_methods_are_disabled_with_a_way_out(monkeypatch):
    shown = fragments.unavailable_methods()
    for entry in registry.REGISTRY.values():
        assert (entry.title in shown) == bool(entry.missing())
        assert all(c.id in shown and c.licence in shown for c in entry.missing())
    monkeypatch.setattr(registry, "REGISTRY", {})
    assert fragments.unavailable_methods() == ""


def entry(title: str, *missing: str) -> SimpleNamespace:
    files = [
        SimpleNamespace(id=weights, file=f"{weights}.pth", licence="<MIT>", how_to_get=f"fetch --now {weights}")
        for weights in missing
    ]
    return SimpleNamespace(title=title, summary=f"About {title}.", missing=lambda: files)


def test_methods_that_the_same_weights_bring_stand_together(monkeypatch):
    entries = [entry("One", "big"), entry("Two", "small"), entry("Three", "big"), entry("Ready")]
    monkeypatch.setattr(registry, "REGISTRY", {spec.title: spec for spec in entries})
    shown = fragments.unavailable_methods()
    assert "3 more methods need weights" in shown
    command = "<code><span>fetch</span> <span>--now</span> <span>{}</span></code>".format
    assert shown.count(command("big")) == shown.count(command("small")) == 1
    assert shown.index("One") < shown.index("Three") < shown.index(command("big")) < shown.index("Two")
    assert "Missing for both: big.pth<br>Licence: &lt;MIT&gt;" in shown
    assert "Missing: small.pth" in shown
    assert "Ready" not in shown


def test_a_comparison_needs_two_methods(monkeypatch):
    entries = {"a": entry("Only"), "b": entry("Absent", "file")}
    monkeypatch.setattr(registry, "REGISTRY", entries)
    assert "only Only is ready" in fragments.comparison_hint()
    monkeypatch.setattr(registry, "REGISTRY", {"b": entries["b"]})
    assert "none is ready" in fragments.comparison_hint()
    monkeypatch.setattr(registry, "REGISTRY", {"a": entries["a"], "c": entry("Another")})
    assert fragments.comparison_hint() == ""


def test_the_status_of_a_comparison_lists_its_methods():
    panels = [
        Panel("First", "done", "1.2 s"),
        Panel("Second", "failed", "why"),
        Panel(ATTACK, "running", progress=Progress("Finding masks", 0.42)),
        Panel("Last"),
    ]
    shown = fragments.comparison_status(panels)
    assert shown.count("<li") == 2
    assert "First <small>1.2 s</small>" in shown
    assert "Second <small>failed</small>" in shown
    assert "onerror=alert(1)&gt;: Finding masks … 42 %" in shown
    assert "<img" not in shown
    assert "Done in 2.0 s" in fragments.comparison_finished(panels[:2], 2)


def test_every_example_is_a_button_with_its_licence():
    shown = fragments.example_buttons()
    assert shown.count("<button") >= 6
    assert shown.count("CC BY") >= 6


def test_an_outdated_result_says_what_to_press():
    assert fragments.outdated("compare", "") == ""
    shown = fragments.outdated("compare", "words")
    assert "Press Compare for these words." in shown
    assert "class='outdated words only-compare'" in shown
