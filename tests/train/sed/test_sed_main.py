"""The smoke run of SED's training on made-up folders: whole, again, interrupted, spread, and with bad input."""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.mini_data import KEYS, two_halves, write_labelled_set
from tests.helpers.processes import run_in_two_processes
from train.common.run_folder import RunFolder
from train.common.sampling import StepGenerator
from train.sed import __main__ as command
from train.sed import initial_model, saving


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("sed").data


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / saving.FILE).read_bytes()).hexdigest()


def rows(out: Path) -> list[list[str]]:
    """log.csv less its seconds."""
    return [line.split(",")[:1] + line.split(",")[2:] for line in (out / "log.csv").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("sed").out


def test_a_run_leaves_its_configuration_log_and_weights(whole):
    assert sorted(os.listdir(whole)) == ["config.json", "log.csv", "sed.safetensors", "state.pt"]
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"animals_train": 2, "street_train": 3}
    assert (config["recipe"]["clip"], config["recipe"]["ignore"]) == ("tiny", "zeros")
    head, *lines = rows(whole)
    names = ["before stage 1", "after stage 1", "after stage 2", "result"]
    assert head == ["step", "learning_rate", "loss", *names]
    assert [line[0] for line in lines] == ["2", "4", "6"]
    assert np.isfinite(np.array(lines, float)).all()


def test_the_tower_and_the_decoder_learn_and_the_text_tower_does_not(whole):
    began, ended = initial_model.tiny_clip(0).state_dict(), load_file(whole / saving.FILE)
    prefix = "sem_seg_head.predictor.clip_model."
    clip = {name.removeprefix(prefix): value for name, value in ended.items() if name.startswith(prefix)}
    assert clip.keys() == began.keys()
    moved = {name for name in clip if not torch.equal(clip[name], began[name])}
    assert moved >= {"visual.trunk.stem.0.weight", "visual.trunk.head.norm.bias", "visual.head.proj.weight"}
    assert [name for name in moved if not name.startswith("visual.")] == []
    assert all(value.isfinite().all() for value in ended.values())


def test_the_published_rates_and_decays_are_used(whole):
    groups = torch.load(whole / "state.pt", weights_only=True)["optimizer"]["param_groups"]
    rate = float(rows(whole)[-1][1])
    found = {(round(group["lr"] / rate, 3), group["weight_decay"]) for group in groups}
    assert found == {(factor, decay) for factor in (0.01, 1.0) for decay in (0.0, 1e-4)}


def test_a_batch_is_of_one_set_and_biases_decay(data, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(command, "fit", lambda module, draw, *_, **options: given.append((draw, options)) or module)
    assert run(data, tmp_path, "--batch", "4") == 0
    [(draw, options)] = given
    assert {len(set(draw(StepGenerator(0, step, 0, 1))["sets"])) for step in range(8)} == {1}
    decaying = {name: options["decays"](name, None) for name in ("decoder.embed.bias", "visual.trunk.head.norm.weight")}
    assert list(decaying.values()) == [True, False]


@pytest.mark.parametrize("setting", [("--seed", "1"), ("--ignore", "masked")])
def test_settings_change_the_weights(whole, data, tmp_path, setting):
    assert run(data, tmp_path, *setting) == 0
    assert digest(tmp_path) != digest(whole)


def test_half_precision_runs(data, tmp_path):
    assert run(data, tmp_path, "--precision", "bf16", "--steps", "1") == 0
    assert {value.dtype for value in load_file(tmp_path / saving.FILE).values()} == {torch.float32}


def test_two_processes_share_a_batch(data, tmp_path):
    out = tmp_path / "out"
    asked = ["--data", str(data), "--out", str(out), "--smoke", "--steps", "2", "--size", "l"]
    printed = run_in_two_processes(command.main, asked)
    assert json.loads(printed[-1])["file"] == saving.FILE
    assert torch.load(out / "state.pt", weights_only=True)["processes"] == 2


def test_a_broken_mask_is_told(tmp_path, capsys):
    folder = tmp_path / "animals_train"
    write_labelled_set(folder, ["cat", "dog"], {key: two_halves(0, 1) for key in KEYS[:2]})
    mask = folder / f"masks/{KEYS[1]}.png"
    mask.write_bytes(mask.read_bytes()[:60])
    assert run(tmp_path, tmp_path / "out", "--batch", "8") == 1
    assert str(mask) in error_line(capsys)
    Image.fromarray(two_halves(0, 1, (50, 60))).save(mask)
    assert run(tmp_path, tmp_path / "out", "--batch", "8") == 1
    assert error_line(capsys).endswith("differ in size: (72, 96), (50, 60).")


@pytest.mark.parametrize("content", ["another clip", "no clip", None])
def test_a_clip_that_does_not_fit_is_told(data, tmp_path, capsys, content):
    path = tmp_path / "clip.pt"
    if content == "another clip":
        torch.save(initial_model.tiny_clip(0).state_dict(), path)
    elif content:
        path.write_bytes(b"none")
    assert command.main(["--data", str(data), "--out", str(tmp_path / "out"), "--clip", str(path)]) == 1
    assert "clip.pt" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told(data, tmp_path, monkeypatch, capsys):
    replace = RunFolder.replace

    def full(folder: RunFolder, name: str, write) -> None:
        def failing(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        replace(folder, name, failing if name == saving.FILE else write)

    monkeypatch.setattr(RunFolder, "replace", full)
    assert run(data, tmp_path, "--steps", "1") == 1
    told = f"error: Cannot write into {tmp_path}: No space left on device. "
    assert error_line(capsys) == told + "What it holds is kept; the same command goes on from there."
    assert sorted(os.listdir(tmp_path)) == ["config.json", "log.csv", "state.pt"]
