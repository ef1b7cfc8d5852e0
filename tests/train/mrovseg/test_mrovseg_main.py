"""The smoke run of MROVSeg's training on made-up folders: its configuration, what it teaches, and bad input."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from train.mrovseg import __main__ as command
from train.mrovseg import initial_model, recipes
from train.mrovseg.recipes import RECIPES
from train.mrovseg.saving import FILE


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("mrovseg").data


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("mrovseg").out


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


def test_a_run_leaves_its_configuration_log_and_weights(whole):
    assert sorted(os.listdir(whole)) == ["config.json", "log.csv", FILE, "state.pt"]
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"animals_train": 2, "street_train": 3}
    assert config["recipe"]["settings"]["masked_attention"] is True
    head, *lines = [line.split(",") for line in (whole / "log.csv").read_text().splitlines()]
    assert head == ["step", "seconds", "learning_rate", "loss", "classes", "masks", "dice", "earlier blocks"]
    assert [line[0] for line in lines] == ["2", "4", "6"]
    assert np.isfinite(np.array(lines, float)).all()


def test_all_that_is_trained_moves(whole):
    _, began = initial_model.tiny_model(recipes.smoke(RECIPES["b"]).settings, 0)
    state, ended = began.state_dict(), load_file(whole / FILE)
    assert ended.keys() == {name for name in state if not name.startswith("clip_visual.")}
    assert [name for name in ended if torch.equal(ended[name], state[name])] == []


def test_parts_are_left_out(data, tmp_path):
    assert run(data, tmp_path, "--without", "fusion", "masked-attention", "--steps", "1") == 0
    settings = json.loads((tmp_path / "config.json").read_text())["recipe"]["settings"]
    assert [settings[name] for name in ("adapter", "fusion", "masked_attention")] == [True, False, False]
    names = load_file(tmp_path / FILE).keys()
    assert not any(".att." in name or name.startswith(("mlp_local.", "bias_", "prop_pos")) for name in names)


def test_half_precision_runs(data, tmp_path):
    assert run(data, tmp_path, "--precision", "bf16", "--steps", "1", "--fixed-views") == 0
    assert {value.dtype for value in load_file(tmp_path / FILE).values()} == {torch.float32}


def test_a_clip_that_does_not_fit_is_told(data, tmp_path, capsys):
    path = tmp_path / "clip.pt"
    torch.save(initial_model.tiny_model(recipes.smoke(RECIPES["b"]).settings, 0)[0].state_dict(), path)
    assert command.main(["--data", str(data), "--out", str(tmp_path / "out"), "--clip", str(path)]) == 1
    assert "clip.pt" in error_line(capsys)
    assert not (tmp_path / "out").exists()
