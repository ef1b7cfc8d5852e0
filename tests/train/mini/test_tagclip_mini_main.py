"""The smoke run of "TagCLIP (mini)" on a made-up data folder: whole, again and interrupted."""

import hashlib
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel
from ovseg_demo.methods.tagclip.training_info import read_training_info
from train.mini.tagclip import __main__ as command
from train.mini.tagclip import experiments

STREET = ["person", "road", "sky", "tree"]


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("mini.tagclip").data


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", "--seeds", "1", *more])


def digest(out: Path, name: str = "voc_train-tagclip-0") -> str:
    return hashlib.sha256((out / name / experiments.FILE).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("mini.tagclip").out


def test_a_run_leaves_weights_that_fit_the_demo(whole):
    path = whole / "voc_train-tagclip-0" / experiments.FILE
    stored, wanted = load_file(path), MiniTagCLIPModel().state_dict()
    assert {name: value.shape for name, value in stored.items()} == {
        name: value.shape for name, value in wanted.items()
    }
    assert path.stat().st_size < 8 * 2**20
    told = read_training_info(path)
    assert "cat" in told.seen_words
    assert {"sheep", "pottedplant", "background"}.isdisjoint(told.seen_words)


def test_the_table_has_every_weighting_on_every_set(data, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    assert run(data, tmp_path, "--variant", "tagclip", "--variant", "zegclip") == 0
    printed = capsys.readouterr().out
    for title in (
        "voc_train, measured on voc_dev (1 photos)",
        "coco_train, measured on coco_train, held out (1 photos)",
    ):
        assert title in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith(("| TagCLIP", "| ZegCLIP"))]
    weightings = ["none", "0.1 off seen", "trusty", "trusty, 0.1 off seen"]
    assert [row[2] for row in rows] == [*weightings, "none", "0.1 off seen"] * 4
    assert digest(tmp_path) == digest(whole)


def test_damaged_views_are_told(whole, data, tmp_path, capsys):
    views = tmp_path / "views/voc_train"
    views.mkdir(parents=True)
    (views / "voc_train.safetensors").write_bytes(b"damaged")
    assert run(data, tmp_path, "--set", "voc_train") == 1
    assert "is damaged; delete it, and it is made again." in capsys.readouterr().err


def test_missing_data_is_told(tmp_path, capsys):
    assert run(tmp_path / "absent", tmp_path / "out") == 1
    assert "absent holds no coco_train and no voc_train" in capsys.readouterr().err
