"""The smoke run of SED's training on made-up folders: whole, again, interrupted, spread, and with bad input."""

import errno
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.mini_data import HELD_OUT, KEYS, two_halves, write_labelled_set
from tests.helpers.processes import run_in_two_processes
from train.common.run_folder import RunFolder
from train.common.sampling import StepGenerator
from train.sed import __main__ as command
from train.sed import initial_model, saving


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    masks = {KEYS[0]: two_halves(0, 1), KEYS[1]: two_halves(2, 255), HELD_OUT[0]: two_halves(0, 2)}
    write_labelled_set(folder / "animals_train", ["cat", "background", "dog"], masks, "cat_mirror")
    write_labelled_set(
        folder / "street_train", ["road", "sky"], {key: two_halves(0, 1) for key in KEYS[:3]}, "tram_bus_street"
    )
    return folder


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / saving.FILE).read_bytes()).hexdigest()


def rows(out: Path) -> list[list[str]]:
    """log.csv less its seconds."""
    return [line.split(",")[:1] + line.split(",")[2:] for line in (out / "log.csv").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert run(data, out) == 0
    return out


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


def test_the_last_line_names_the_file(whole, data, capsys):
    hashed = digest(whole)
    assert run(data, whole) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"file": saving.FILE, "sha256": hashed, "size": (whole / saving.FILE).stat().st_size}


@pytest.mark.parametrize(("step", "workers"), [(3, "0"), (2, "1")])
def test_an_interrupted_run_ends_as_one_that_was_not(whole, data, tmp_path, monkeypatch, capsys, step, workers):
    fit = command.fit

    def interrupted(*arguments, **options):
        fit(*arguments, stop_after=step, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "fit", interrupted)
        assert run(data, tmp_path) == 130
    assert "the same command goes on" in capsys.readouterr().err
    torch.randn(7)  # another process has drawn other numbers by now
    assert run(data, tmp_path, "--workers", workers) == 0
    assert digest(tmp_path) == digest(whole)
    assert rows(tmp_path) == rows(whole)


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


def test_other_settings_in_one_folder_are_refused(whole, data, capsys):
    assert run(data, whole, "--ignore", "masked") == 1
    assert "holds a run with other settings (recipe was" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "error: steps is 0, but must be 1 or more."),
        (("--batch", "0"), "error: batch is 0, but must be 1 or more."),
        (("--workers", "-1"), "error: workers is -1, but must be 0 or more."),
        (("--seed", "-1"), "error: seed is -1, but must be 0 or more."),
    ],
)
def test_unusable_settings_are_told(data, tmp_path, capsys, arguments, message):
    assert run(data, tmp_path / "out", *arguments) == 1
    assert error_line(capsys) == message
    assert not (tmp_path / "out").exists()


def test_missing_data_is_told_and_leaves_no_folder(tmp_path, capsys):
    assert run(tmp_path / "absent", tmp_path / "out") == 1
    assert "absent holds no folder NAME_train" in error_line(capsys)
    assert not (tmp_path / "out").exists()


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


def test_unequal_shares_of_a_batch_are_told(data, tmp_path, monkeypatch, capsys):
    three = SimpleNamespace(num_processes=3, destroy_process_group=lambda: None)
    monkeypatch.setattr(command.command, "PartialState", lambda **options: three)
    assert run(data, tmp_path) == 1
    assert error_line(capsys) == "error: A batch of 2 cannot be shared by 3 processes."
