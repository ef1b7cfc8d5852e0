"""The benchmark of TagCLIP, on a model of a few layers; times are never asserted."""

from functools import partial

import numpy as np
import pytest

from eval.benchmark import paired_timing, random_weights, tagclip
from eval.benchmark.__main__ import main
from eval.benchmark.paired_timing import RELEASED
from eval.benchmark.tagclip import TagCLIPMeasurement
from ovseg_demo.errors import UserError
from tests.helpers import tagclip_models


@pytest.fixture(params=["tagclip", "zegclip"])
def model(request, tmp_path, monkeypatch) -> str:
    """A small model, and measurements made in this process."""
    monkeypatch.setattr(tagclip, "MODELS", [request.param])
    monkeypatch.setitem(random_weights.BUILDERS, request.param, partial(tagclip_models.published, request.param))
    monkeypatch.setattr(tagclip, "SIDE", tagclip_models.SIDE)
    monkeypatch.setattr(tagclip, "alone", lambda work, *arguments: work(*arguments))
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    return request.param


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_the_command_compares_ours_with_the_release(model, native, monkeypatch, capsys):
    monkeypatch.setattr(paired_timing, "native_precision", lambda _: native)
    assert main(["tagclip", "--model", model, "--classes", "30", "3", "--repeats", "2"]) == 0
    about, _, _, _, *lines = capsys.readouterr().out.splitlines()
    assert about.startswith(f"{model}, random weights, ")
    rows = [line.strip("| ").split(" | ") for line in lines]
    names = [RELEASED, "float32", "bfloat16"][: 3 if native == "bfloat16" else 2]
    assert [row[:2] for row in rows] == [[count, name] for count in ("3", "30") for name in names]
    for row in rows:
        assert float(row[5]) > 100
        assert int(row[6]) > 1
        assert float(row[7]) < (0.2 if row[1] == "bfloat16" else 1e-4)
        assert float(row[8].strip("%")) > (50 if row[1] == "bfloat16" else 99)


def test_runs_are_compared():
    labels, best = np.array([[0, 1, 2, 2]]), np.array([[0.5, 0.2, 0.9, 0.1]], np.float32)
    others, theirs = np.array([[0, 1, 2, 1]]), np.array([[0.5, 0.3, 0.9, 0.9]], np.float32)
    runs = {
        RELEASED: {3: TagCLIPMeasurement([1.0], [4.0, 5, 9], 100.4, labels, best)},
        "ours": {3: TagCLIPMeasurement([0.5], [2.0], 50.0, others, theirs)},
    }
    _, _, *lines = tagclip.comparison_table(runs).splitlines()
    assert lines == [
        "| 3 | as published | 5.00 | 1.00 | 1.0 | 100 | 3 | 0e+00 | 100.0% |",
        "| 3 | ours | 2.00 | 0.50 | 2.5 | 50 | 3 | 1e-01 | 75.0% |",
    ]


def test_a_failing_contender_fails_the_command(model, monkeypatch, capsys):
    def fails(*_):
        raise UserError("no memory")

    monkeypatch.setattr(tagclip, "run_implementation", fails)
    assert main(["tagclip", "--model", model, "--classes", "2"]) == 1
    assert "no memory" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["--classes", "1"], ["--classes"], ["--repeats", "0"], ["--model", "none"]])
def test_unusable_arguments_are_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["tagclip", *typed])
    assert ended.value.code == 2
