"""Early rejection and the heat maps of a method, in a real browser over a stand-in for SED."""

import numpy as np
import pytest
import torch

from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.sed.options import SEDMiniOptions
from ovseg_demo.result import Evidence, RegionMap, Segmentation

ATTACK = "<img src=x onerror=alert(1)>"
WORDS = f"cat, dog, {ATTACK}, sky"
FAKE, REGIONS = "sed-fake", "regions"


class Fake:
    """Finds the classes from left to right, in equal parts; rejection drops all but the first k.

    For the single word REGIONS it has a map of regions instead of heat maps.
    """

    def segment(self, photo, vocabulary, options, stages):
        count = len(vocabulary)
        kept = min(count, options.rejection[0]) if options.rejection else count
        maps = np.tile(np.linspace(0, 1, 6, dtype=np.float16), (count, 4, 1))
        found = Segmentation.from_scores(vocabulary.names, torch.eye(count)[:, None], photo.pixels.shape[:2])
        steps = (
            Evidence("Cost map", maps, tuple(range(count))),
            Evidence("After stage 1", maps[:kept], tuple(range(kept)), (0.0, 1.0)),
        )
        if vocabulary.names == (REGIONS,):
            steps = (RegionMap("Regions", np.array([[0, 1]], np.uint8), ("left", f"right of {ATTACK}")),)
        notes = (f"Early rejection: {count} words → {kept}.",) if options.rejection else ()
        return Segmentation(**{**vars(found), "evidence": steps, "notes": notes})


@pytest.fixture(scope="module")
def page_address(engine):
    """A page of its own, whose registry has the stand-in too."""
    from ovseg_demo.ui.page import build, launch_settings

    registry.REGISTRY[FAKE] = MethodSpec(
        FAKE, "SED · fake", "From left to right.", (), lambda _: Fake(), SEDMiniOptions
    )
    page = build(engine)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    yield url
    page.close()
    del registry.REGISTRY[FAKE]


@pytest.fixture
def page(opened, page_address):
    with opened(page_address, viewport={"width": 1440, "height": 900}) as page:
        yield page


def choose(page, method=FAKE) -> None:
    page.locator(f"#method input[value={method}]").check()
    page.wait_for_selector("#option-rejection" if method in (FAKE, "sed-mini") else "#proposals", state="visible")


def segment(page, words=WORDS) -> None:
    before = page.locator(".viewer").get_attribute("data-result")
    page.fill("#words textarea, #words input", words)
    page.click("#segment")
    page.wait_for_function(
        "before => { const now = document.querySelector('.viewer').dataset.result; return now && now !== before }",
        arg=before,
    )


def titles(page) -> list[str]:
    page.wait_for_selector(".evidence-panel >> nth=1")
    return page.locator(".evidence-panel strong").all_inner_texts()


def pick(page, number: int) -> None:
    page.select_option(".evidence select", index=number)
    page.wait_for_selector(f".evidence-panels[data-shown$=' {number}']:not([aria-busy])")


def test_the_switch_shows_only_where_it_changes_something(page):
    assert page.locator("#rejection-switch").is_hidden()
    choose(page)
    assert page.locator("#rejection-switch").is_visible()
    assert page.locator("#proposals").is_hidden()
    choose(page, "ovseg-sam-mini")
    page.wait_for_selector("#rejection-switch", state="hidden")


def test_a_word_is_looked_into_and_the_rejected_say_where(page):
    choose(page)
    page.locator("#rejection-switch input").check()
    page.locator("#rejection input").fill("2")
    segment(page)
    assert page.locator(".viewer-notes").inner_text() == "Early rejection: 4 words → 2."
    assert page.locator(".evidence-panel").count() == 0, "drawn although nobody looks"
    page.click(".evidence summary")
    assert titles(page) == ["Cost map", "After stage 1"]
    assert page.locator(".evidence option").all_inner_texts() == WORDS.split(", ")
    assert page.evaluate("[...document.querySelectorAll('.evidence-panel img')].every((i) => i.naturalWidth > 100)")
    pick(page, 2)
    assert page.locator(".evidence-panel img").count() == 1
    assert "Rejected: nowhere among the best in “Cost map”." in page.locator(".evidence-panel").last.inner_text()
    assert page.locator(".evidence img[src=x]").count() == 0


def test_the_next_result_shows_its_own_maps_of_the_same_word(page):
    choose(page)
    segment(page)
    page.click(".evidence summary")
    titles(page)
    pick(page, 3)
    segment(page, "sky, dog")
    page.wait_for_selector(".evidence-panels[data-shown$=' 0']:not([aria-busy])")
    assert page.locator(".evidence select").evaluate("s => s.selectedOptions[0].textContent") == "sky"


def test_what_has_changed_is_told(page):
    choose(page)
    segment(page)
    page.locator("#rejection-switch input").check()
    page.wait_for_selector(".outdated:has-text('apply the settings')")
    page.locator("#rejection-switch input").uncheck()
    page.wait_for_selector(".outdated", state="detached")
    page.locator("#rejection input").fill("5")
    page.wait_for_timeout(500)
    assert page.locator(".outdated").count() == 0


def test_nonsense_is_taken_as_the_nearest(page):
    choose(page)
    page.locator("#rejection-switch input").check()
    page.locator("#rejection input").fill("-3")
    segment(page)
    assert page.locator(".viewer-notes").inner_text() == "Early rejection: 4 words → 1."


def test_a_method_without_maps_has_nothing_to_look_into(page):
    assert page.locator(".evidence").is_hidden()
    choose(page)
    segment(page)
    assert page.locator(".evidence").is_visible()
    page.locator("#method input[value=mini-dense]").check()
    segment(page, "cat, dog")
    page.wait_for_selector(".evidence", state="hidden")
    assert page.locator(".viewer-notes").inner_text() == ""


@pytest.mark.parametrize("size", [(1440, 900), (1280, 720), (390, 844)])
def test_open_it_fits_the_screen(page, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    choose(page)
    segment(page)
    page.click(".evidence summary")
    titles(page)
    tall, wide = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
    assert wide <= size[0]
    if size[0] > 900:
        assert tall <= size[1]
        bottom, top = (page.locator(selector).bounding_box() for selector in (".viewer", "#downloads"))
        assert bottom["y"] + bottom["height"] <= top["y"], "the viewer lies over the buttons"


def test_only_the_methods_that_have_it_are_compared_with_early_rejection(page):
    page.click("[role=tab][data-task=compare]")
    for box in page.locator("#compared input").all():
        box.set_checked(box.get_attribute("name") in ("mini-dense", FAKE))
    page.wait_for_selector("#rejection-switch", state="visible")
    page.locator("#rejection-switch input").check()
    page.locator("#rejection input").fill("2")
    page.fill("#words textarea, #words input", WORDS)
    page.click("#compare-start")
    page.wait_for_selector(".compare[data-done='2']", timeout=120_000)
    assert page.locator(".panel-message:not(:empty)").count() == 0
    assert "Early rejection: 4 words → 2." in page.locator(".compare-notes").inner_text()
    assert page.locator(".evidence").is_hidden()


def test_the_bundled_sed_rejects_words_and_shows_every_stage(page):
    choose(page, "sed-mini")
    page.locator("#rejection-switch input").check()
    page.locator("#rejection input").fill("2")
    segment(page, "cat, bird, wall, bus, guitar, pizza")
    assert "Early rejection: 6 words" in page.locator(".viewer-notes").inner_text()
    assert page.locator(".legend-row:not(.absent) .legend-name", has_text="cat").count() == 1
    page.click(".evidence summary")
    assert titles(page)[:2] == ["Cost map", "Before stage 1"]
    assert "After stage 3" in titles(page)


def test_regions_have_a_list_and_no_word_to_choose(page):
    choose(page)
    segment(page, REGIONS)
    page.click(".evidence summary")
    page.wait_for_selector(".evidence-regions")
    assert page.locator(".evidence-regions li").all_inner_texts() == ["left", f"right of {ATTACK}"]
    colours = page.locator(".evidence-regions .swatch").evaluate_all(
        "all => all.map(e => getComputedStyle(e).background)"
    )
    assert len(set(colours)) == 2
    assert page.locator(".evidence-word").is_hidden()
    assert page.locator(".evidence-key").is_hidden()
    segment(page)
    assert titles(page) == ["Cost map", "After stage 1"]
    assert page.locator(".evidence-key").is_visible()
