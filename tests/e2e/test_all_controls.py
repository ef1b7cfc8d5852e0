"""Controls of all kinds in a real browser: live ones without a switch, choices for None, and what a person moves."""

import pytest

from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry
from ovseg_demo.ui.page import build, launch_settings
from tests.helpers.declared_options import CHOSEN, DECLARED


@pytest.fixture(scope="module")
def address():
    registry.REGISTRY[DECLARED.id] = DECLARED
    page = build(Engine("cpu"))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    yield url
    page.close()
    del registry.REGISTRY[DECLARED.id]


@pytest.fixture
def page(opened, address):
    """The page with a result of the method."""
    with opened(address, viewport={"width": 1366, "height": 768}) as page:
        page.locator(f"#method input[value={DECLARED.id}]").check()
        page.wait_for_selector("#option-rows", state="visible")
        page.click("#segment")
        page.wait_for_selector(".viewer-notes p")
        yield page


def shows(page, option: str) -> None:
    """Waits for a result with this value of an option, which the page does not call outdated."""
    page.wait_for_selector(f".viewer-notes p:has-text('{option},')")
    page.wait_for_selector(".outdated", state="detached")


def test_live_controls_show_their_changes_at_once(page):
    shows(page, "shade None, flipped False, rows 2, fewest None")
    page.locator("#flipped input").check()
    shows(page, "flipped True")
    page.locator("#rows input[type=range]").fill("7")
    shows(page, "rows 7")
    page.locator("#shade").get_by_label("dark").check()
    shows(page, "shade dark")
    page.locator("#shade").get_by_label("as it is").check()
    shows(page, "shade None")
    page.locator("#fewest-switch input").check()
    shows(page, "fewest 5")
    page.locator("#fewest input").fill("3")
    shows(page, "fewest 3")
    assert page.locator("#fewest-switch input").is_checked()
    page.locator("#fewest-switch input").uncheck()
    shows(page, "fewest None")


def test_pixels_that_no_word_fits_are_left_out_and_back_at_once(page):
    assert page.locator(".legend-row:not(.absent)").all_inner_texts() == [
        *("white cat\n50 %\nconfidence 90 %", "none of the words\n50 %"),
    ]
    absent = page.locator(".legend-row.absent")
    assert absent.count() == 4
    assert absent.first.inner_text() == "green bird\nnot found"
    assert absent.first.get_attribute("title") == "green bird: in the picture with a probability of 20 %"
    canvas = page.locator(".viewer canvas").bounding_box()
    page.mouse.move(canvas["x"] + canvas["width"] / 4, canvas["y"] + canvas["height"] / 2)
    page.wait_for_selector(".probe:not([hidden])")
    assert page.locator(".probe").inner_text().split("\n") == [
        *("none of the words", "None fits well enough:", "white cat", "20 %"),
    ]

    page.locator("#unlabelled-switch input").uncheck()
    page.wait_for_selector(".legend-row:has-text('white cat'):has-text('100 %')")
    assert page.locator(".legend-row.unlabelled").count() == 0
    assert page.locator("#unlabelled").is_hidden()
    shows(page, "unlabelled 0.0")
    page.locator("#unlabelled-switch input").check()
    page.wait_for_selector(".legend-row.unlabelled:has-text('50 %')")
    page.locator("#unlabelled input[type=range]").fill("0.95")
    page.wait_for_selector(".legend-row.unlabelled:has-text('100 %')")
    assert absent.count() == 5
    shows(page, "unlabelled 0.95")


def test_a_slider_that_is_moved_is_no_longer_left_to_the_method(page):
    page.wait_for_function(f"document.querySelector('#softness input[type=range]').value === '{CHOSEN}'")
    assert page.locator("#softness-reason").inner_text() == "It is soft."
    page.locator("#softness input[type=range]").fill("0.75")
    page.wait_for_selector(".outdated:has-text('Press Segment to apply the settings')")
    assert not page.locator("#softness-switch input").is_checked()
    page.click("#segment")
    shows(page, "softness 0.75")


def test_groups_of_controls_have_a_name(page):
    for name in ("Method", "Shade", "Rows", "Grain"):
        assert page.get_by_role("group", name=name, exact=True).count() == 1
    assert page.get_by_label("Fewest: at least").count() == 1


@pytest.mark.parametrize("size", [(1366, 768), (390, 844), (320, 700)])
def test_no_control_is_cut(page, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    settings = page.locator("#settings").bounding_box()
    for part in page.locator(".option-row > *, .option-radio label").all():
        box = part.bounding_box()
        assert box["x"] + box["width"] <= settings["x"] + settings["width"]
