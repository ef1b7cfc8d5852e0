"""What every training pipeline promises: tests/helpers/pipelines.py lists them; their own modules test the rest."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.pipelines import PAIRS, PIPELINES, Pipeline
from train.common import command

ALL = PIPELINES | {"ovseg.pairs": PAIRS}


def cases(attribute: str, pipelines: dict[str, Pipeline] = ALL) -> list:
    """A parameter for each pipeline and each entry of an attribute."""
    return [
        pytest.param(name, entry, id=f"{name}-{number}")
        for name, pipeline in pipelines.items()
        for number, entry in enumerate(getattr(pipeline, attribute))
    ]


@pytest.fixture(autouse=True)
def _quick_models(request, monkeypatch):
    ALL[request.node.callspec.params["name"]].replace_models(monkeypatch)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_smoke_run_leaves_finite_weights_and_logs(finished_run, name):
    out = finished_run(name).out
    for result in PIPELINES[name].results:
        assert all(value.isfinite().all() for value in load_file(out / result).values())
    for head, *rows in PIPELINES[name].log_rows(out):
        assert head[:3] == ["step", "learning_rate", "loss"]
        assert np.isfinite(np.array(rows, float)).all()


@pytest.mark.parametrize(("name", "where"), cases("interruptions", PIPELINES))
def test_an_interrupted_run_ends_as_one_that_was_not(finished_run, tmp_path, monkeypatch, capsys, name, where):
    pipeline, finished = PIPELINES[name], finished_run(name)
    data, whole, out = finished.data, finished.out, tmp_path / "interrupted"
    if where.arguments:
        whole = tmp_path / "whole"
        assert pipeline.run(data, whole, *where.arguments) == 0
    elif pipeline.reused:
        shutil.copytree(whole / pipeline.reused, out / pipeline.reused)
    with monkeypatch.context() as patched:
        pipeline.interrupt(patched, where)
        assert pipeline.run(data, out, *where.arguments) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (out / pipeline.results[-1]).exists()
    torch.randn(7)  # another process has drawn other numbers by now
    assert pipeline.run(data, out, *where.arguments, *where.resumed_with) == 0
    assert pipeline.digests(out) == pipeline.digests(whole)
    assert pipeline.log_rows(out) == pipeline.log_rows(whole)


@pytest.mark.parametrize("name", [name for name, pipeline in PIPELINES.items() if pipeline.record])
def test_a_finished_run_is_not_trained_again_and_prints_its_record_again(finished_run, tmp_path, capsys, name):
    pipeline, finished, out = PIPELINES[name], finished_run(name), tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert pipeline.run(finished.data, out) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((out / "config.json").read_text())
    [result], [digest] = pipeline.results, pipeline.digests(finished.out)
    assert json.loads(printed.splitlines()[-1]) == {
        pipeline.record[0]: pipeline.record[1],
        "sha256": digest,
        "size": (out / result).stat().st_size,
    }
    assert pipeline.digests(out) == [digest]
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"log.csv", result}


@pytest.mark.parametrize(("name", "case"), cases("other_settings"))
def test_other_settings_in_one_folder_are_refused(finished_run, capsys, name, case):
    finished, (arguments, message) = finished_run(name), case
    before = content(finished.out)
    capsys.readouterr()
    assert ALL[name].run(finished.data, finished.out, *arguments) == 1
    error = error_line(capsys)
    assert "holds a run with other settings" in error
    assert message in error
    assert content(finished.out) == before


@pytest.mark.parametrize("name", ALL)
def test_missing_data_is_one_sentence_and_leaves_no_folder(tmp_path, capsys, name):
    assert ALL[name].run(tmp_path / "absent", tmp_path / "out") == 1
    assert error_line(capsys).startswith(f"error: {tmp_path / 'absent'} {ALL[name].missing_data}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "case"), cases("unusable"))
def test_unusable_numbers_are_one_sentence_and_leave_no_folder(finished_run, tmp_path, capsys, name, case):
    arguments, message = case
    assert ALL[name].run(finished_run(name).data, tmp_path / "out", *arguments) == 1
    assert error_line(capsys) == f"error: {message}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "batch"), [("mrovseg", 2), ("ovseg.maskformer", 4), ("sed", 2), ("segclip", 4), ("tagclip", 2)]
)
def test_unequal_shares_of_a_batch_are_one_sentence(finished_run, tmp_path, monkeypatch, capsys, name, batch):
    data = finished_run(name).data
    three = SimpleNamespace(num_processes=3, destroy_process_group=lambda: None)
    monkeypatch.setattr(command, "PartialState", lambda **options: three)
    assert PIPELINES[name].run(data, tmp_path) == 1
    assert error_line(capsys) == f"error: A batch of {batch} cannot be shared by 3 processes."


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
