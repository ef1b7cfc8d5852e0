"""The benchmark of dense CLIP, on a model of a few layers; times are never asserted."""

import numpy as np
import pytest

from eval.benchmark import dense, paired_timing, random_weights
from eval.benchmark.__main__ import main
from eval.benchmark.dense import DenseMeasurement
from eval.benchmark.paired_timing import RELEASED
from ovseg_demo.errors import UserError
from tests.helpers import dense_models

MODEL = "tiny"


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    """A small model and a small photo, measured in this process."""
    dense_models.register(tmp_path)
    monkeypatch.setattr(dense, "MODELS", {MODEL: dense_models.ARCHITECTURE})
    monkeypatch.setitem(random_weights.BUILDERS, MODEL, dense_models.state)
    monkeypatch.setattr(dense, "SIZE", (60, 80))
    monkeypatch.setattr(dense, "alone", lambda work, *arguments: work(*arguments))
    return MODEL


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_the_command_compares_ours_with_the_release(model, native, monkeypatch, capsys):
    monkeypatch.setattr(paired_timing, "native_precision", lambda _: native)
    assert main(["dense", "--model", model, "--classes", "6", "--repeats", "1"]) == 0
    about, _, _, _, *lines = capsys.readouterr().out.splitlines()
    assert about.startswith(f"{model}, random weights, ")
    assert " at 80 x 60, 6 classes, " in about
    rows = [line.strip("| ").split(" | ") for line in lines]
    names = [RELEASED, "float32", "bfloat16"][: 3 if native == "bfloat16" else 2]
    assert [row[:2] for row in rows] == [[refined, name] for refined in ("no", "yes") for name in names]
    for row in rows:
        assert float(row[5]) > 100
        assert int(row[6]) > 1
        assert float(row[7]) < (0.2 if row[1] == "bfloat16" else 1e-4)
        assert float(row[8].strip("%")) > (90 if row[1] == "bfloat16" else 99.5)


def test_runs_are_compared():
    labels, best = np.array([[0, 1, 2, 2]]), np.array([[0.5, 0.2, 0.9, 0.1]], np.float32)
    others, theirs = np.array([[0, 1, 2, 1]]), np.array([[0.5, 0.3, 0.9, 0.9]], np.float32)
    runs = {
        RELEASED: {True: DenseMeasurement([1.0], [4.0, 5, 9], 100.4, labels, best)},
        "ours": {True: DenseMeasurement([0.5], [2.0], 50.0, others, theirs)},
    }
    _, _, *lines = dense.comparison_table(runs).splitlines()
    assert lines == [
        "| yes | as published | 5.00 | 1.00 | 1.0 | 100 | 3 | 0e+00 | 100.0% |",
        "| yes | ours | 2.00 | 0.50 | 2.5 | 50 | 3 | 1e-01 | 75.0% |",
    ]


def test_a_failing_contender_fails_the_command(model, monkeypatch, capsys):
    def fails(*_):
        raise UserError("no memory")

    monkeypatch.setattr(dense, "run_implementation", fails)
    assert main(["dense", "--model", model]) == 1
    assert "no memory" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["--classes", "1"], ["--classes"], ["--repeats", "0"], ["--model", "none"]])
def test_unusable_arguments_are_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["dense", *typed])
    assert ended.value.code == 2
