"""The slider and the checkbox of a method that is one file appear on the page."""

import pytest

from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry
from tests.helpers.toy_method import TOY


@pytest.fixture(scope="module")
def toy_address():
    """A page whose registry has the toy too."""
    from ovseg_demo.ui.page import build, launch_settings

    registry.REGISTRY[TOY.id] = TOY
    page = build(Engine("cpu"))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    yield url
    page.close()
    del registry.REGISTRY[TOY.id]


def test_the_page_shows_the_controls_of_a_new_method_and_uses_them(opened, toy_address):
    with opened(toy_address, viewport={"width": 1440, "height": 900}) as page:
        assert page.locator("#border").is_hidden()
        assert page.locator("#inverted").is_hidden()
        page.locator("#method input[value=toy]").check()
        page.wait_for_selector("#border", state="visible")
        assert "Border" in page.locator("#option-border").inner_text()
        assert "Pixels at the left that stay unlabelled" in page.locator("#option-border").inner_text()
        assert page.locator("#inverted").is_visible()
        assert page.locator("#proposals").is_hidden()

        page.locator("#border input[type=range]").fill("0")
        page.locator("#inverted input").check()
        page.fill("#words textarea, #words input", "cat, dog")
        page.click("#segment")
        page.wait_for_selector(".legend-row:has-text('dog'):has-text('100 %')")
        assert page.locator("#outdated .outdated").count() == 0
        page.locator("#inverted input").uncheck()
        page.wait_for_selector("#outdated .outdated.settings")
        page.locator("#inverted input").check()
        page.wait_for_selector("#outdated .outdated.settings", state="detached")

        page.locator("#method input[value=mini-dense]").check()
        page.wait_for_selector("#border", state="hidden")
