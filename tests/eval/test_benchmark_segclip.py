"""The benchmark of SegCLIP, on a model of narrow layers; times are never asserted."""

import numpy as np
import pytest

from eval.benchmark import paired_timing, random_weights, segclip
from eval.benchmark.__main__ import main
from eval.benchmark.paired_timing import RELEASED
from eval.benchmark.segclip import SegCLIPMeasurement
from ovseg_demo.errors import UserError
from ovseg_demo.methods import windows
from tests.helpers import segclip_models

MODEL = "tiny"


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    """A small model and a small photo, measured in this process."""
    segclip_models.register(tmp_path)
    monkeypatch.setattr(segclip, "MODELS", {MODEL: segclip_models.ARCHITECTURE})
    monkeypatch.setitem(random_weights.BUILDERS, MODEL, segclip_models.published)
    monkeypatch.setattr(windows, "WINDOW", segclip_models.SIDE)
    monkeypatch.setattr(segclip, "SIZE", (60, 80))
    monkeypatch.setattr(segclip, "CONTEXT_THRESHOLD", 0.01)  # a small model tells classes less well apart
    monkeypatch.setattr(segclip, "alone", lambda work, *arguments, environment=None: work(*arguments))
    return MODEL


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_the_command_compares_ours_with_the_release(model, native, monkeypatch, capsys):
    monkeypatch.setattr(paired_timing, "native_precision", lambda _: native)
    assert main(["segclip", "--model", model, "--classes", "16", "--repeats", "1"]) == 0
    about, _, _, _, *lines = capsys.readouterr().out.splitlines()
    assert about.startswith(f"{model}, random weights, ")
    assert " at 80 x 60, 16 classes, " in about
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in rows] == [RELEASED, "float32", "bfloat16"][: 3 if native == "bfloat16" else 2]
    assert [bool(row[5]) for row in rows] == [False] + [True] * (len(rows) - 1)
    for row in rows:
        assert float(row[6]) > 100
        assert int(row[7]) > 1
    assert float(rows[1][8]) < 1e-4
    assert float(rows[1][9].strip("%")) > 99.5


def test_runs_are_compared():
    labels, best = np.array([[0, 1, 2, -1]]), np.array([[0.5, 0.2, 0.9, 0.1]], np.float32)
    others, theirs = np.array([[0, 1, 2, 1]]), np.array([[0.5, 0.3, 0.9, 0.9]], np.float32)
    runs = {
        RELEASED: SegCLIPMeasurement([3.0, 4.0, 8.0], [4.0, 5, 9], 100.4, [], labels, best),
        "ours": SegCLIPMeasurement([0.5, 0.5, 0.5], [1.5, 2.0, 2.5], 50.0, [0.01], others, theirs),
    }
    _, _, *lines = segclip.comparison_table(runs).splitlines()
    assert lines == [
        "| as published | 5.00 | 4.00 | 1.0 | 1000 |  | 100 | 3 | 0e+00 | 100.0% |",
        "| ours | 2.00 | 0.50 | 2.5 | 1500 | 1510 | 50 | 3 | 1e-01 | 75.0% |",
    ]


def test_a_failing_contender_fails_the_command(model, monkeypatch, capsys):
    def fails(*_):
        raise UserError("no memory")

    monkeypatch.setattr(segclip, "run_implementation", fails)
    assert main(["segclip", "--model", model]) == 1
    assert "no memory" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["--classes", "1"], ["--classes"], ["--repeats", "0"], ["--model", "none"]])
def test_unusable_arguments_are_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["segclip", *typed])
    assert ended.value.code == 2
