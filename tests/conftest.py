import gc
import os
import tempfile

# Before torch is imported: every worker of pytest-xdist, with the processes that it starts, has one core for itself.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import pytest
from hypothesis import settings

import ovseg_demo  # noqa: F401  before torch, whose threads it sets up

WORKER_BYTES = 3 * 2**30
"""What one worker may take: all bundled models, photos of large sizes, and its child processes."""

settings.register_profile("shared machine", deadline=None)  # a busy neighbour is no failure
settings.load_profile("shared machine")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp()  # a server that ends deletes the files that it was given
os.environ["OVSEG_CHECKPOINTS"] = tempfile.mkdtemp()  # whatever the developer has downloaded, only bundled weights
os.environ["OVSEG_CACHE"] = tempfile.mkdtemp()  # nor what the developer's words were read as


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many workers as cores and free memory allow; one file needs none."""
    paths = [argument.split("::")[0] for argument in config.args]
    if len(paths) == 1 and paths[0].endswith(".py"):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // WORKER_BYTES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Give a worker a file at a time, but all browser tests, or all that share training runs, to one worker.

    pytest-xdist's own groups (`--dist loadgroup`) have no effect in pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class LoadByShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.split("::")[0])

    return LoadByShared(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Leave the modules and the tests, more than a million objects, out of each later collection of garbage.

    One that visits them all takes half a second, and every run of a training command asks for one.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups that take longest, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: _group(item.nodeid.split("::")[0]) not in (_BROWSER, _TRAINING))


_BROWSER, _TRAINING = "a browser and a server", "training runs"


def _group(path: str) -> str:
    if path.startswith("tests/e2e/"):
        return _BROWSER
    if path.startswith("tests/train/") and path.endswith(("_main.py", "test_pipeline_contract.py")):
        return _TRAINING
    return path


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
