from dataclasses import dataclass
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from tests.helpers.pipelines import PAIRS, PIPELINES, remember_texts


@dataclass(frozen=True)
class FinishedRun:
    """The data of a pipeline's tiny run, and its output, which tests must leave as it is."""

    data: Path
    out: Path


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """accelerate keeps one precision a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A function from the name of a pipeline to its finished run, which nothing disturbed; each is run once."""
    known: dict[str, FinishedRun] = {}

    def run(name: str) -> FinishedRun:
        if name not in known:
            pipeline = (PIPELINES | {"ovseg.pairs": PAIRS})[name]
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patched:
                pipeline.replace_models(patched)
                pipeline.write_data(folder / "data")
                assert pipeline.run(folder / "data", folder / "out") == 0
            AcceleratorState._reset_state(reset_partial_state=True)
            known[name] = FinishedRun(folder / "data", folder / "out")
        return known[name]

    return run


@pytest.fixture
def remembered_texts(monkeypatch):
    """Texts are embedded once a process."""
    remember_texts(monkeypatch)
