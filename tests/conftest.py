import os

import numpy as np
import pytest

import ovseg_demo  # noqa: F401  before torch, whose threads it sets up

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def engine():
    """The real engine with the bundled weights, shared so that photos are encoded once."""
    from ovseg_demo.engine import Engine

    return Engine("cpu")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
