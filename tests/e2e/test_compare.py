"""The Compare tab and automatic granularity in a real browser, with made-up methods beside the bundled ones."""

import json
import time

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from ovseg_demo.errors import MethodError
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.methods.ovseg.options import OVSegOptions
from ovseg_demo.result import Choice, Segmentation
from ovseg_demo.ui import gallery
from ovseg_demo.ui.page import build, launch_settings
from tests.helpers.browser import wait_until_drawn, wait_until_still

PIZZA = gallery.FOLDER / "pizza.jpg"
WORDS = "<b>pizza</b>, horse, bus"
SLOW = 120_000  # milliseconds: the first result of a photo on a busy machine
CHOSEN = 0.37
REASON = "Between 0.3 and 0.4 the picture hardly changes."


class Stripes:
    """Upright stripes of the classes, the last unlabelled; granularity changes their number."""

    def segment(self, photo, vocabulary, options, stages):
        granularity = CHOSEN if options.granularity is None else options.granularity
        height, width = photo.pixels.shape[:2]
        classes = len(vocabulary.names)
        stripes = np.arange(width) * round(2 + 10 * granularity) // width
        labels = np.broadcast_to(stripes % (classes + 1), (height, width)).astype(np.int32)
        labels = np.where(labels == classes, -1, labels).astype(np.int32)
        scores = np.where(labels < 0, 0, 0.7).astype(np.float32)
        chosen = {"granularity": Choice(CHOSEN, REASON)} if options.granularity is None else {}
        return Segmentation(vocabulary.names, labels, scores, np.maximum(labels, 0)[None], scores[None], chosen)


class Failing:
    def segment(self, photo, vocabulary, options, stages):
        raise MethodError("These weights are <i>damaged</i>.")


class Endless:
    def segment(self, photo, vocabulary, options, stages):
        while True:
            with stages.timed("Counting sheep"):
                time.sleep(0.05)


FAKES = {
    "stripes": (Stripes, OVSegOptions),
    "failing": (Failing, MethodOptions),
    "endless": (Endless, MethodOptions),
}


@pytest.fixture(scope="module")
def address(engine):
    for name, (method, options) in FAKES.items():
        registry.REGISTRY[name] = MethodSpec(name, name.title(), "Made up.", (), lambda _, m=method: m(), options)
    page = build(engine)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    yield url
    page.close()
    for name in FAKES:
        del registry.REGISTRY[name]


@pytest.fixture
def page(opened, address):
    with opened(address, viewport={"width": 1280, "height": 800}, has_touch=True, accept_downloads=True) as page:
        page.set_input_files("#photo input[type=file]", str(PIZZA))
        page.wait_for_selector("#photo img[src*=pizza]", state="attached")
        page.fill("#words textarea, #words input", WORDS)
        yield page


def compare(page, *chosen: str) -> None:
    page.click("[data-task=compare]")
    for box in page.locator("#compared input").all():
        box.set_checked(box.get_attribute("name") in chosen)
    page.click("#compare-start")


ALL_SHOWN = """() => {
  const states = [...document.querySelectorAll('.panel-message')].map((message) => message.dataset.state);
  return states.length && states.every((state) => state === 'done' || state === 'failed');
}"""


def finish(page) -> None:
    page.wait_for_selector("#compare-status .stage-total", timeout=SLOW)
    page.wait_for_function(ALL_SHOWN)
    wait_until_drawn(page)


def transforms(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.pane canvas')].map((canvas) => canvas.style.transform)")


def pictures(page) -> list[str]:
    wait_until_drawn(page)
    return page.evaluate("[...document.querySelectorAll('.pane canvas')].map((canvas) => canvas.toDataURL())")


def middle(page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_results_side_by_side_where_one_method_fails(page, address):
    chosen = ["ovseg-sam-mini", "mini-dense", "stripes"]
    compare(page, *chosen, "failing")
    finish(page)
    assert page.locator(".panel").count() == 4
    assert page.locator(".panel-message[data-state=failed]").inner_text() == "These weights are <i>damaged</i>."
    assert page.locator(".compare").get_attribute("data-done") == "3"
    assert all(line.split()[1] == "s" for line in page.locator(".panel-line").all_inner_texts() if line)

    # One legend for all; words stay text.
    assert set(page.locator(".compare-word").all_inner_texts()) <= {"<b>pizza</b>", "horse", "bus", "none of the words"}
    assert "<b>pizza</b>" in page.locator(".compare-word").all_inner_texts()
    assert page.locator(".compare b:not(.badge), .compare img").count() == 0
    before = pictures(page)
    page.locator(".compare-row", has_text="horse").hover()
    assert all(new != old for new, old in zip(pictures(page)[:3], before[:3], strict=True))
    page.locator("#header").hover()
    assert pictures(page) == before

    # Zoom and pan move every picture, and one double click puts all back.
    fitted = transforms(page)
    assert len(set(fitted)) == 1
    page.mouse.move(*middle(page, ".pane"))
    page.mouse.wheel(0, -400)
    page.wait_for_function("document.querySelector('.zoom output').textContent !== '100 %'")
    zoomed = transforms(page)
    assert len(zoomed) == 4
    assert len(set(zoomed)) == 1
    assert zoomed != fitted
    page.mouse.down()
    x, y = middle(page, ".pane")
    page.mouse.move(x - 30, y - 20, steps=3)
    page.mouse.up()
    assert len(set(transforms(page))) == 1
    assert transforms(page) != zoomed
    page.mouse.dblclick(x, y)
    assert transforms(page) == fitted
    page.locator(".panels").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".zoom output").inner_text() == "125 %"
    page.click("[data-zoom=reset]")
    assert transforms(page) == fitted

    # The share of pixels that differ is that of the label maps of the API, and a pixel tells what each method says.
    client = Client(address, verbose=False)
    maps = [
        np.array(Image.open(client.predict(handle_file(str(PIZZA)), WORDS, method, api_name="/segment")[1]))
        for method in chosen
    ]
    differ = np.any([maps[0] != each for each in maps[1:]], axis=0)
    assert float(page.locator(".differ-share").get_attribute("data-share")) == pytest.approx(differ.mean(), abs=1e-9)
    page.click("[data-view=differ]")
    box = page.locator(".pane").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    names = [*WORDS.split(", "), *["none of the words"] * 253]
    here = [names[each[each.shape[0] // 2, each.shape[1] // 2]] for each in maps]
    assert page.locator(".card .probe-name").all_inner_texts() == here
    title = page.locator(".card .probe-title").inner_text()
    assert title == ("All agree" if len(set(here)) == 1 else f"{len(set(here))} different labels")


def test_words_that_no_method_finds_are_folded_below_the_legend(page):
    page.fill("#words textarea, #words input", ", ".join(f"word {number}" for number in range(20)))
    compare(page, "stripes", "failing")
    finish(page)
    found = page.locator(".compare-word").all_inner_texts()
    assert len(found) == 10
    page.locator("summary", has_text="10 words not found").click()
    absent = page.locator(".compare-legend .legend-row.absent").all_inner_texts()
    assert sorted([*found, *(row.removesuffix("\nnot found") for row in absent)]) == sorted(
        f"word {number}" for number in range(20)
    )


def test_the_swipe_divider_moves_by_keyboard_and_by_hand(page):
    compare(page, "mini-dense", "stripes")
    finish(page)
    page.locator("[data-view=side]").focus()
    page.keyboard.press("ArrowRight")
    divider = page.get_by_role("slider", name="Divider between the two methods")
    clip = "getComputedStyle(document.querySelector('.clip')).clipPath"
    assert divider.get_attribute("aria-valuenow") == "50"
    halved = page.evaluate(clip)
    divider.focus()
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "52"
    assert page.evaluate(clip) != halved
    page.keyboard.press("Home")
    assert page.evaluate(clip) == "inset(0px 100% 0px 0px)"
    page.keyboard.press("End")
    box = page.locator(".pane").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40, steps=3)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "25"
    left = page.get_by_label("Method on the left")
    right = page.get_by_label("Method on the right")
    before = left.input_value(), right.input_value()
    shown = pictures(page)
    left.select_option(before[1])
    assert (left.input_value(), right.input_value()) == before[::-1]
    assert pictures(page) == shown[::-1]
    page.get_by_role("button", name="Swap left and right").click()
    assert (left.input_value(), right.input_value()) == before
    assert pictures(page) == shown


def test_cancelling_keeps_what_has_come(page):
    compare(page, "stripes", "endless")
    page.wait_for_selector(".stage-now:has-text('Endless: Counting sheep')", timeout=SLOW)
    page.click("#cancel")
    page.wait_for_selector("#compare-status .stage-now:has-text('Cancelled')", timeout=SLOW)
    page.wait_for_selector(".panel-message[data-state=cancelled]")
    assert page.locator(".compare").get_attribute("data-done") == "1"
    assert page.locator("#cancel").is_disabled()


def test_the_next_comparison_forgets_the_differences_of_the_last(page):
    compare(page, "mini-dense", "stripes")
    finish(page)
    difference = page.locator(".differ-share").inner_text() + page.locator(".differ-key").inner_text()
    agree, disagree = (float(piece.split()[1]) for piece in page.locator(".differ-key li").all_inner_texts())
    assert agree + disagree == pytest.approx(100)
    assert "agree" in difference
    compare(page, "stripes", "endless")
    page.wait_for_selector(".stage-now:has-text('Endless: Counting sheep')", timeout=SLOW)
    page.wait_for_function("document.querySelector('.compare').dataset.done === '1'")
    page.click("#cancel")
    page.wait_for_selector(".panel-message[data-state=cancelled]")
    assert page.locator(".differ-share").inner_text() + page.locator(".differ-key").inner_text() == ""


def test_settings_moved_while_comparing_wait_for_compare_and_leave_the_other_result(page):
    page.locator("#method input[value=stripes]").check()
    page.locator("#granularity-switch input").check()
    page.click("#segment")
    page.wait_for_selector("#granularity-reason .reason", timeout=SLOW)
    number = page.locator(".viewer").get_attribute("data-result")
    compare(page, "mini-dense", "stripes")
    finish(page)
    assert not page.locator("#granularity-reason").is_visible()
    assert not page.locator("#status").is_visible()
    assert REASON in page.locator(".compare-notes").inner_text()
    assert not page.locator(".outdated").is_visible()

    page.locator("#granularity input[type=range]").fill("0.9")
    page.wait_for_selector(".outdated:has-text('Press Compare to apply')")
    assert page.locator(".viewer").get_attribute("data-result") == number
    page.click("[data-task=segment]")
    page.wait_for_function("number => document.querySelector('.viewer').dataset.result !== number", arg=number)
    assert not page.locator("#granularity-switch input").is_checked()
    page.click("[data-task=compare]")
    page.click("#compare-start")
    page.wait_for_selector(".outdated", state="detached", timeout=SLOW)


def test_a_comparison_ends_a_running_segmentation_in_its_own_tab(page):
    page.locator("#method input[value=endless]").check()
    page.click("#segment")
    page.wait_for_selector("#status .stage-now:has-text('Counting sheep')", timeout=SLOW)
    compare(page, "mini-dense", "stripes")
    finish(page)
    assert not page.locator("#status").is_visible()
    page.click("[data-task=segment]")
    page.wait_for_selector("#status .stage-now:has-text('Cancelled')")
    assert not page.locator("#compare-status").is_visible()


def test_too_few_methods_are_refused_in_one_sentence(page):
    compare(page, "stripes")
    page.locator(".toast-body").wait_for()
    assert "two to four methods" in page.locator(".toast-body").inner_text()


def test_with_one_method_the_tab_says_what_it_takes(browser, engine, monkeypatch):
    known = registry.REGISTRY
    absent = next(name for name, entry in known.items() if entry.missing())
    monkeypatch.setattr(registry, "REGISTRY", {name: known[name] for name in (registry.DEFAULT, absent)})
    served = build(engine)
    _, url, _ = served.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("#segment")
    page.click("[data-task=compare]")
    page.wait_for_selector("#compare-start:disabled")
    assert "takes two methods; only OVSeg · mini is ready" in page.locator("#comparison-hint").inner_text()
    assert "1 more method needs weights" in page.locator("#unavailable").inner_text()
    page.close()
    served.close()


def test_automatic_granularity_moves_the_slider_until_a_person_does(page):
    page.locator("#method input[value=stripes]").check()
    page.locator("#granularity-switch input").check()
    page.click("#segment")
    page.wait_for_function(
        "chosen => document.querySelector('#granularity input[type=range]').value == chosen", arg=CHOSEN, timeout=SLOW
    )
    assert page.locator("#granularity-reason").inner_text() == REASON
    number = page.locator(".viewer").get_attribute("data-result")
    page.wait_for_timeout(1500)
    assert page.locator(".viewer").get_attribute("data-result") == number, "the slider's move ran the request again"
    assert page.locator("#granularity-switch input").is_checked()

    page.locator("#granularity input[type=range]").fill("0.9")
    page.wait_for_function("number => document.querySelector('.viewer').dataset.result !== number", arg=number)
    assert not page.locator("#granularity-switch input").is_checked()
    assert page.locator("#granularity-reason").inner_text() == ""
    with page.expect_download() as waiting:
        page.click("#make-json")
    assert json.loads(waiting.value.path().read_text())["granularity"] == 0.9


def test_a_phone_shows_all_without_sideways_scrolling(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    page.goto(address)
    page.wait_for_selector("#segment")
    compare(page, "mini-dense", "stripes")
    finish(page)
    page.wait_for_function("document.querySelector('.pane').getBoundingClientRect().bottom < innerHeight")
    wait_until_still(page)
    for view in ("side", "swipe", "differ"):
        page.click(f"[data-view={view}]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".pane").scroll_into_view_if_needed()
    x, y = middle(page, ".pane")
    page.touchscreen.tap(x, y)
    card = page.locator(".card").bounding_box()
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= 390
    page.close()
