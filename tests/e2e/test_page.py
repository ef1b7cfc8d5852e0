"""The page in a real browser."""

import json

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.ui import gallery
from tests.helpers.browser import wait_until_drawn, wait_until_still

PIZZA = gallery.FOLDER / "pizza.jpg"
SLOW = 120_000  # milliseconds: the first result of a photo on a busy machine


@pytest.fixture
def page(opened, server):
    with opened(server, viewport={"width": 1440, "height": 900}, accept_downloads=True) as page:
        yield page


def upload(page, path) -> None:
    if page.locator("#photo button[aria-label='Clear']").count():
        page.click("#photo button[aria-label='Clear']")
    page.set_input_files("#photo input[type=file]", str(path))
    page.wait_for_selector("#photo img", state="attached")


def segment(page, words: str) -> None:
    before = page.locator(".viewer").get_attribute("data-result")
    page.fill("#words textarea, #words input", words)
    page.click("#segment")
    page.wait_for_function(
        "before => { const now = document.querySelector('.viewer').dataset.result; return now && now !== before }",
        arg=before,
        timeout=SLOW,
    )


def legend(page) -> dict[str, str]:
    """The shares of the words that were found."""
    found = page.locator(".legend-row:not(.absent, .unlabelled)")
    names, shares = found.locator(".legend-name"), found.locator(".legend-share")
    return dict(zip(names.all_inner_texts(), shares.all_inner_texts(), strict=True))


def canvas_bytes(page) -> str:
    wait_until_drawn(page)
    return page.evaluate("document.querySelector('.viewer canvas').toDataURL()")


def test_a_whole_visit(page):
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")
    assert "pizza" in legend(page)
    assert legend(page)["pizza"].endswith("%")

    overlay = canvas_bytes(page)
    page.locator(".opacity input").fill("0")
    plain = canvas_bytes(page)
    assert plain != overlay
    page.click("[role=tab][data-mode=labels]")
    labels = canvas_bytes(page)
    page.click("[role=tab][data-mode=confidence]")
    assert len({overlay, plain, labels, canvas_bytes(page)}) == 4
    page.click("[role=tab][data-mode=overlay]")

    box = page.locator(".viewer canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6)
    page.wait_for_selector(".probe:not([hidden])")
    assert page.locator(".probe-title").inner_text() in {"pizza", "horse", "bus", "none of the words"}
    assert page.locator(".probe-row").count() <= 5

    first = page.locator(".viewer").get_attribute("data-result")
    page.locator("#granularity input[type=range]").fill("0.2")
    page.wait_for_function("first => document.querySelector('.viewer').dataset.result !== first", arg=first)

    with page.expect_download() as waiting:
        page.click("#make-json")
    content = json.loads(waiting.value.path().read_text())
    assert content["granularity"] == 0.2
    assert [c["name"] for c in content["classes"]] == list(legend(page))
    with page.expect_download() as waiting:
        page.click("#make-labels")
    indices = np.array(Image.open(waiting.value.path()))
    assert indices.shape == (461, 640)
    assert set(np.unique(indices)) <= {0, 1, 2, 255}

    page.click("#segment")
    page.wait_for_selector(".status small:has-text('cached')")


def test_an_example_fills_photo_and_words(page):
    example = gallery.examples()[1]
    page.locator("#examples button").nth(1).click()
    page.wait_for_function(
        "words => document.querySelector('#words textarea, #words input').value === words", arg=example.words
    )
    page.wait_for_function(
        "count => document.querySelectorAll('.chip').length === count", arg=example.words.count(",") + 1
    )
    assert example.file.split(".")[0] in page.locator("#photo img").get_attribute("src")


def test_chips_follow_typing_and_markup_stays_text(page):
    page.fill("#words textarea, #words input", "cat，<img src=x onerror=alert(1)>, sofa|couch, cat")
    page.wait_for_function("document.querySelectorAll('.chip').length === 3")
    assert page.locator(".chip img").count() == 0
    assert "Repeated and counted once" in page.locator("#chips").inner_text()


def test_markup_in_words_reaches_legend_and_errors_as_text(page):
    upload(page, PIZZA)
    segment(page, "<b>pizza</b>")
    assert page.locator(".viewer b, .viewer img").count() == 0
    page.fill("#words textarea, #words input", "<img src=x onerror=alert(1)>" + "a" * 200)
    page.click("#segment")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "<img src=x onerr" in toast.inner_text()
    assert toast.locator("img[src=x]").count() == 0


def test_methods_without_weights_are_disabled_and_explained(page):
    assert page.locator("#unavailable input[type=radio]:disabled").count() >= 1
    page.locator("#unavailable summary").first.click()
    assert "--download" in page.locator("#unavailable details[open]").inner_text()


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("empty.png", b"", "cat", "not an image"),
        ("broken.jpg", (gallery.FOLDER / "pizza.jpg").read_bytes()[:5000], "cat", "corrupt or incomplete"),
        ("text.png", b"hello", "cat", "not an image"),
        (None, None, "", "at least one word"),
        (None, None, ",".join(map(str, range(5000))), "limit is 1000"),
    ],
)
def test_bad_input_is_one_sentence_and_the_next_request_is_served(page, tmp_path, name, content, words, message):
    if name:
        (tmp_path / name).write_bytes(content)
        upload(page, tmp_path / name)
    page.fill("#words textarea, #words input", words)
    page.click("#segment")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert message in toast.inner_text()
    assert "Traceback" not in page.content()
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")


def upload_noise(page, folder) -> None:
    """A photo that nobody has segmented before."""
    Image.fromarray(np.random.default_rng().integers(0, 255, (480, 640, 3), np.uint8)).save(folder / "noise.png")
    upload(page, folder / "noise.png")


def start_long_request(page, tmp_path) -> None:
    """A thorough search lasts long enough to be interrupted on any machine."""
    upload_noise(page, tmp_path)
    page.locator("#proposals input[value=thorough]").check()
    page.fill("#words textarea, #words input", "cat, dog")
    page.click("#segment")
    page.wait_for_selector(".stage-now:has-text('Finding masks')")


def test_a_request_can_be_cancelled(page, tmp_path):
    start_long_request(page, tmp_path)
    page.click("#cancel")
    page.wait_for_selector(".stage-now:has-text('Cancelled')", timeout=SLOW)
    assert page.locator("#cancel").is_disabled()
    upload(page, PIZZA)
    page.locator("#proposals input[value=balanced]").check()
    segment(page, "pizza, horse, bus")


def test_a_second_press_replaces_the_running_request(page, tmp_path):
    start_long_request(page, tmp_path)
    page.locator("#proposals input[value=fast]").check()
    page.click("#segment")
    page.wait_for_selector(".stage-total", timeout=SLOW)
    with page.expect_download() as waiting:
        page.click("#make-json")
    assert json.loads(waiting.value.path().read_text())["proposals"] == "fast"


REACHABLE = """selector => {
  const box = document.querySelector(selector).getBoundingClientRect();
  const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return Boolean(hit && hit.closest(selector));
}"""


@pytest.mark.parametrize("size", [(1440, 900), (1366, 768), (1280, 720)])
def test_one_screen_without_scrolling(browser, server, size):
    page = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
    page.goto(server)
    page.wait_for_selector("#segment")
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")
    page.locator("#unavailable summary").first.click()
    tall, wide = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
    assert (wide, tall) <= size
    for selector in ("#segment", "#status .stage-total", ".viewer canvas", "#make-json", ".legend-row"):
        assert page.evaluate(REACHABLE, selector), selector
    if size == (1440, 900):
        page.locator("#unavailable summary").first.click()
        assert page.evaluate(REACHABLE, "#granularity input[type=range]")
    page.close()


def test_a_phone_needs_no_sideways_scrolling_and_shows_whole_score_cards(browser, server):
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    page.goto(server)
    page.wait_for_selector("#segment")
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_function("document.querySelector('.viewer canvas').getBoundingClientRect().bottom < innerHeight")
    wait_until_still(page)
    canvas = page.locator(".viewer canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for share in (0.1, 0.45, 0.9):
        page.mouse.click(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
        card = page.locator(".probe").bounding_box()
        assert card["x"] >= 0
        assert card["x"] + card["width"] <= 390
        page.mouse.click(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    page.close()


def test_the_newest_of_two_requests_is_shown(page, tmp_path):
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")
    upload_noise(page, tmp_path)
    page.click("#segment")
    page.wait_for_selector(".stage-now:has-text('Finding masks')")
    upload(page, PIZZA)
    segment(page, "pizza, bus")
    page.wait_for_timeout(1500)
    assert "Cancelled" not in page.locator("#status").inner_text()
    assert "Done in" in page.locator("#status").inner_text()
    assert set(legend(page)) <= {"pizza", "bus"}


def test_the_slider_may_move_while_a_request_runs(page, tmp_path):
    upload_noise(page, tmp_path)
    page.fill("#words textarea, #words input", "cat, dog")
    page.click("#segment")
    page.wait_for_selector(".stage-now:has-text('Finding masks')")
    page.locator("#granularity input[type=range]").fill("0.1")
    page.wait_for_selector(".stage-total", timeout=SLOW)
    page.wait_for_timeout(1500)
    with page.expect_download() as waiting:
        page.click("#make-json")
    assert json.loads(waiting.value.path().read_text())["granularity"] == 0.1


def granularity_of_file(page) -> float:
    with page.expect_download() as waiting:
        page.click("#make-json")
    return json.loads(waiting.value.path().read_text())["granularity"]


def test_a_number_out_of_range_is_taken_as_the_nearest(page):
    failed = []
    page.on("response", lambda response: response.status >= 500 and failed.append(response.url))
    upload(page, PIZZA)
    box = page.locator("#granularity input[type=number]")
    box.fill("7")
    page.locator("#granularity-switch input").check()  # the server sends the slider a value
    segment(page, "pizza, horse, bus")
    page.wait_for_selector("#granularity-reason .reason")
    for number, taken in (("9", 1), ("-4", 0), ("0.4", 0.4)):
        before = page.locator(".viewer").get_attribute("data-result")
        box.fill(number)
        page.wait_for_function("before => document.querySelector('.viewer').dataset.result !== before", arg=before)
        assert granularity_of_file(page) == taken
    box.fill("7")
    segment(page, "pizza, horse, bus")
    assert granularity_of_file(page) == 1
    assert failed == []


def test_a_result_of_another_photo_or_other_words_is_marked_until_they_are_back(page):
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")
    words = page.locator("#words textarea, #words input").first
    words.fill("pizza, horse")
    page.wait_for_selector(".outdated:has-text('Press Segment for these words')")
    words.fill("pizza, horse, bus")
    page.wait_for_selector(".outdated", state="detached")
    upload(page, gallery.FOLDER / "tram_bus_street.jpg")
    page.wait_for_selector(".outdated:has-text('Press Segment for this photo')")
    assert page.evaluate("getComputedStyle(document.querySelector('.viewer canvas')).opacity") == "0.35"
    number = page.locator(".viewer").get_attribute("data-result")
    page.locator("#granularity input[type=range]").fill("0.1")
    page.wait_for_timeout(700)
    assert page.locator(".viewer").get_attribute("data-result") == number, "fused the previous photo again"
    segment(page, "bus, tree")
    page.wait_for_selector(".outdated", state="detached")


def test_the_slider_has_no_button_that_moves_it_unnoticed(page):
    assert page.locator("#granularity input[type=range]").is_visible()
    assert page.locator("#granularity button").count() == 0


def test_a_new_result_is_not_dimmed_by_an_old_highlight(page):
    upload(page, PIZZA)
    segment(page, "pizza, horse, bus")
    plain = canvas_bytes(page)
    page.locator(".legend-row").first.hover()
    assert canvas_bytes(page) != plain
    before = page.locator(".viewer").get_attribute("data-result")
    page.locator("#words textarea, #words input").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('.viewer').dataset.result !== before", arg=before)
    page.locator("#header").hover()
    assert canvas_bytes(page) == plain


def test_two_visitors_at_once_get_their_own_results(browser, server):
    visits = [("pizza.jpg", "pizza, horse, bus"), ("tram_bus_street.jpg", "tree, bus, guitar")]
    pages = []
    for file, words in visits:
        page = browser.new_page()
        page.goto(server)
        page.wait_for_selector("#segment")
        upload(page, gallery.FOLDER / file)
        page.fill("#words textarea, #words input", words)
        pages.append(page)
    for page in pages:
        page.click("#segment")
    for page, (_, words) in zip(pages, visits, strict=True):
        page.wait_for_selector(".viewer.has-result", timeout=SLOW)
        assert legend(page)
        assert set(legend(page)) <= set(words.split(", "))
        page.close()
