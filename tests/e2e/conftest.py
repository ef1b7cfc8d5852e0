import shutil
from contextlib import contextmanager

import pytest


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens the page at an address, in a context with these settings; what its scripts do wrong fails the test."""

    @contextmanager
    def visit(address: str, **settings):
        context = browser.new_context(**settings)
        page = context.new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("dialog", lambda dialog: page.problems.append(f"dialog: {dialog.message}"))
        page.goto(address)
        page.wait_for_selector("#segment")
        yield page
        assert page.problems == []
        context.close()

    return visit
