"""Which words count as seen, and the trusty map, in a real browser over a TagCLIP of random weights."""

import json
import zlib

import pytest
import torch
from gradio_client import Client, handle_file
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.method import TagCLIP
from ovseg_demo.methods.tagclip.options import TagCLIPOptions, ZegCLIPOptions
from ovseg_demo.methods.tagclip.training_info import TrainingInfo
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto
from ovseg_demo.ui import gallery

ATTACK = "<img src=x onerror=alert(1)>"
WORDS = f"cat, bird, {ATTACK}, bowl"
TRUSTY, PLAIN = "tagclip-random", "zegclip-random"
WIDTH = 16
ABOUT = TrainingInfo(("cat",), "photo", seen_penalty=True)


class RandomReader:
    """Reads words and photos as noise, the same each time."""

    name, slow_text_encoder = "random", False

    def embed_texts(self, words):
        return torch.cat([_noise(zlib.crc32(word.encode()), 1, WIDTH) for word in words])

    def embed_image(self, image, report):
        return WindowedPhoto(
            image.shape[:2], ((0, 0),), ImageEmbeddings(_noise(1, 1, WIDTH, 6, 8), _noise(2, 1, WIDTH))
        )


def _noise(seed: int, *shape: int) -> Tensor:
    """Unit vectors along the second axis."""
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def entry(method: str, trusty: bool) -> MethodSpec:
    def build(_):
        torch.manual_seed(0)
        return TagCLIP(RandomReader(), Decoder(DecoderSizes(WIDTH, 2, 2, learner=trusty, trusty=trusty)), ABOUT)

    options = TagCLIPOptions if trusty else ZegCLIPOptions
    return MethodSpec(method, method, "Noise meets noise.", (), build, options)


@pytest.fixture(scope="module")
def page_address(engine):
    """A page of its own, whose registry has the random methods too."""
    from ovseg_demo.ui.page import build, launch_settings

    registry.REGISTRY |= {TRUSTY: entry(TRUSTY, True), PLAIN: entry(PLAIN, False)}
    page = build(engine)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    yield url
    page.close()
    for method in (TRUSTY, PLAIN):
        del registry.REGISTRY[method]


@pytest.fixture
def page(opened, page_address):
    with opened(page_address, viewport={"width": 1440, "height": 900}) as page:
        yield page
        assert page.locator(".toast-body").count() == 0


def choose(page, method=TRUSTY) -> None:
    page.locator(f"#method input[value={method}]").check()
    page.wait_for_selector("#option-seen", state="visible")


def write(page, words=WORDS) -> None:
    page.fill("#words textarea, #words input", words)
    page.wait_for_function(
        "count => document.querySelectorAll('#chips .chip').length === count", arg=words.count(",") + 1
    )


def untick(page) -> None:
    page.locator("#seen-switch input").uncheck()
    page.wait_for_selector(".marks label >> nth=0", state="visible")


def boxes(page) -> dict[str, bool]:
    labels = page.locator(".marks label").all()
    return {label.inner_text(): label.locator("input").is_checked() for label in labels}


def mark(page, word: str) -> None:
    page.locator(".marks label").filter(has=page.get_by_text(word, exact=True)).locator("input").check()


def segment(page) -> str:
    """The note of the result."""
    before = page.locator(".viewer").get_attribute("data-result")
    page.click("#segment")
    page.wait_for_function(
        "before => { const now = document.querySelector('.viewer').dataset.result; return now && now !== before }",
        arg=before,
    )
    return page.locator(".viewer-notes").inner_text()


def look(page) -> list[str]:
    """The titles of the maps."""
    page.click(".evidence summary")
    page.wait_for_selector(".evidence-panel")
    return page.locator(".evidence-panel strong").all_inner_texts()


def test_the_boxes_show_only_where_they_change_something(page):
    assert page.locator("#option-seen").is_hidden()
    assert page.locator("#trusty").is_hidden()
    choose(page)
    assert page.locator("#trusty").is_visible()
    assert page.locator("#proposals").is_hidden()
    assert page.locator(".marks").is_hidden(), "as trained"
    choose(page, PLAIN)
    page.wait_for_selector("#trusty", state="hidden")
    page.locator("#method input[value=mini-dense]").check()
    page.wait_for_selector("#option-seen", state="hidden")


def test_marked_words_count_as_seen(page):
    choose(page)
    write(page)
    assert segment(page) == "Counted as seen in training: cat."
    untick(page)
    assert segment(page).endswith(": none of the words.")
    mark(page, "bird")
    mark(page, ATTACK)
    page.wait_for_selector(".outdated:has-text('apply the settings')")
    assert segment(page) == f"Counted as seen in training: bird, {ATTACK}."
    assert page.locator(".marks img").count() == 0


def test_marks_follow_the_words(page):
    choose(page)
    write(page)
    untick(page)
    assert boxes(page) == dict.fromkeys(WORDS.split(", "), False)
    mark(page, "bird")
    mark(page, "bowl")
    write(page, "bowl, sky")
    page.wait_for_function("document.querySelectorAll('.marks label').length === 2")
    assert boxes(page) == {"bowl": True, "sky": False}
    assert segment(page) == "Counted as seen in training: bowl."
    choose(page, PLAIN)
    write(page, "bird, sky, bowl")
    page.wait_for_function("document.querySelectorAll('.marks label').length === 3")
    assert boxes(page) == {"bird": True, "sky": False, "bowl": True}


def test_marks_outlast_a_method_that_has_none(page):
    choose(page)
    write(page)
    untick(page)
    mark(page, "bird")
    page.locator("#method input[value=mini-dense]").check()
    page.wait_for_selector("#option-seen", state="hidden")
    write(page, "sky, bird")
    choose(page)
    page.wait_for_selector(".marks label >> nth=1", state="visible")
    assert boxes(page) == {"sky": False, "bird": True}


def test_the_trusty_map_is_seen_beside_the_masks(page):
    choose(page)
    write(page)
    segment(page)
    titles = look(page)
    assert [title.startswith("Trusty map") for title in titles] == [False, True, False]
    assert page.evaluate("[...document.querySelectorAll('.evidence-panel img')].every((i) => i.naturalWidth > 100)")
    captions = page.locator(".evidence-panel span").all_inner_texts()
    assert all(caption.startswith("0 to 1, highest 0.") for caption in captions)
    shown = page.locator(".evidence-panel img").nth(1).get_attribute("src")
    page.select_option(".evidence select", index=3)
    page.wait_for_selector(".evidence-panels[data-shown$=' 3']:not([aria-busy])")
    assert page.locator(".evidence-panel img").nth(1).get_attribute("src") == shown, "it is of no word"


def test_without_the_weighting_nothing_is_weighted(page):
    choose(page)
    write(page)
    segment(page)
    assert len(look(page)) == 3
    page.locator("#trusty input").uncheck()
    page.wait_for_selector(".outdated:has-text('apply the settings')")
    segment(page)
    page.wait_for_function("document.querySelectorAll('.evidence-panel').length === 2")


@pytest.mark.parametrize("size", [(1440, 900), (1280, 720), (390, 844)])
def test_it_fits_the_screen(page, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    choose(page)
    write(page, ", ".join(f"word {number}" for number in range(40)))
    untick(page)
    mark(page, "word 39")
    assert segment(page) == "Counted as seen in training: word 39."
    look(page)
    tall, wide = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
    assert wide <= size[0]
    assert page.locator(".marks").bounding_box()["height"] < 100
    if size[0] > 900:
        assert tall <= size[1]


def test_only_the_methods_that_have_them_are_compared_with_them(page):
    page.click("[role=tab][data-task=compare]")
    for box in page.locator("#compared input").all():
        box.set_checked(box.get_attribute("name") in ("mini-dense", TRUSTY, PLAIN))
    page.wait_for_selector("#trusty", state="visible")
    write(page)
    untick(page)
    mark(page, "bowl")
    page.locator("#trusty input").uncheck()
    page.click("#compare-start")
    page.wait_for_selector(".compare[data-done='3']", timeout=120_000)
    assert page.locator(".panel-message:not(:empty)").count() == 0
    notes = page.locator(".compare-notes").inner_text()
    assert "Counted as seen in training: bowl." in notes
    assert notes.count("Counted as seen in training") == 1, "both say the same"


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({}, "Counted as seen in training: cat."),
        ({"seen": "bowl|sky; dog"}, "Counted as seen in training: bowl."),
        ({"seen": ""}, "Counted as seen in training: none of the words."),
    ],
)
def test_words_that_count_as_seen_are_noted_through_the_api(page_address, options, note):
    photo = handle_file(str(gallery.FOLDER / "pizza.jpg"))
    *_, content = Client(page_address, verbose=False).predict(photo, "cat, bowl", TRUSTY, options, api_name="/segment")
    with open(content) as file:
        assert json.load(file)["notes"] == [note]
