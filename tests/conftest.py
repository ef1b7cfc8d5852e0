import os
import tempfile

import numpy as np
import pytest
from hypothesis import settings

import ovseg_demo  # noqa: F401  before torch, whose threads it sets up

settings.register_profile("shared machine", deadline=None)  # a busy neighbour is no failure
settings.load_profile("shared machine")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OVSEG_CHECKPOINTS"] = tempfile.mkdtemp()  # whatever the developer has downloaded, only bundled weights
os.environ["OVSEG_CACHE"] = tempfile.mkdtemp()  # nor what the developer's words were read as


@pytest.fixture(scope="session")
def engine():
    """The real engine with the bundled weights, shared so that photos are encoded once."""
    from ovseg_demo.engine import Engine

    return Engine("cpu")


@pytest.fixture(scope="session")
def server(engine):
    """The real page on a free port; its address."""
    from ovseg_demo.ui.page import build, launch_settings

    page = build(engine)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **launch_settings())
    yield url
    page.close()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
