"""The smoke run of MaskFormer's training on made-up folders: whole, again, interrupted, spread and measured."""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.mini_data import HELD_OUT, KEYS, spelling, two_halves, write_labelled_set
from train.ovseg.maskformer import __main__ as command
from train.ovseg.maskformer import evaluate, trained_model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    masks = {KEYS[0]: two_halves(0, 1), KEYS[1]: two_halves(2, 255), HELD_OUT[0]: two_halves(0, 2)}
    write_labelled_set(folder / "animals_train", ["cat", "background", "dog"], masks, "cat_mirror")
    write_labelled_set(
        folder / "street_train", ["road", "sky"], {key: two_halves(0, 1) for key in KEYS[:3]}, "tram_bus_street"
    )
    return folder


@pytest.fixture(scope="module", autouse=True)
def _quick_texts():
    with pytest.MonkeyPatch.context() as patched:
        for module in (command, evaluate):
            patched.setattr(module, "create_class_embedder", lambda clip, device: spelling)
        yield


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / trained_model.FILE).read_bytes()).hexdigest()


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
    assert sorted(os.listdir(whole)) == ["config.json", "log.csv", "maskformer.safetensors", "state.pt"]
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"animals_train": 2, "street_train": 3}
    assert (config["init"], config["recipe"]["clip"], config["recipe"]["architecture"]["backbone"]) == (
        *(None, "mini"),
        "r101c",
    )
    head, *lines = rows(whole)
    assert head == ["step", "learning_rate", "loss", "classes", "masks", "dice", "earlier layers"]
    assert [line[0] for line in lines] == ["2", "4", "6"]
    assert np.isfinite(np.array(lines, float)).all()
    assert all(value.isfinite().all() for value in load_file(whole / trained_model.FILE).values())


def test_the_last_line_names_the_file(whole, data, capsys):
    hashed = digest(whole)
    assert run(data, whole) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"file": trained_model.FILE, "sha256": hashed, "size": (whole / trained_model.FILE).stat().st_size}


@pytest.mark.parametrize(("backbone", "step", "workers"), [("r101c", 3, "0"), ("swinb", 2, "2")])
def test_an_interrupted_run_ends_as_one_that_was_not(data, tmp_path, monkeypatch, capsys, backbone, step, workers):
    assert run(data, tmp_path / "whole", "--backbone", backbone) == 0
    fit = command.fit

    def interrupted(*arguments, **options):
        fit(*arguments, stop_after=step, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "fit", interrupted)
        assert run(data, tmp_path / "stopped", "--backbone", backbone) == 130
    assert "the same command goes on" in capsys.readouterr().err
    torch.randn(7)  # another process has drawn other numbers by now
    assert run(data, tmp_path / "stopped", "--backbone", backbone, "--workers", workers) == 0
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


def test_the_recipes_rates_and_decays_are_used(whole):
    """At the last step: the backbone at a tenth of the rate, and norms and queries, among others, without decay."""
    groups = torch.load(whole / "state.pt", weights_only=True)["optimizer"]["param_groups"]
    rate = float(rows(whole)[-1][1])
    found = {(round(group["lr"] / rate, 2), group["weight_decay"]) for group in groups}
    assert found == {(0.1, 1e-4), (1.0, 1e-4), (1.0, 0.0)}, "the backbone's norms are no parameters"


def test_everything_learns_from_scratch(whole, data, tmp_path):
    """Without weights to begin with there is nothing to freeze."""
    assert run(data, tmp_path, "--steps", "1") == 0
    one, other = load_file(tmp_path / trained_model.FILE), load_file(whole / trained_model.FILE)
    fixed = {name for name in one if torch.equal(one[name], other[name])}
    assert not [name for name in fixed if not any(part in name for part in (".norm.", "decoder.norm"))]


def test_published_parts_stay_as_they_are(whole, data, tmp_path):
    assert run(data, tmp_path, "--init", str(whole / trained_model.FILE)) == 0
    one, other = load_file(tmp_path / trained_model.FILE), load_file(whole / trained_model.FILE)
    kept = {name.split(".")[1] for name in one if name.startswith("backbone.") and torch.equal(one[name], other[name])}
    moved = {
        name.split(".")[1] for name in one if name.startswith("backbone.") and not torch.equal(one[name], other[name])
    }
    assert kept >= {"stem", "res2"}
    assert moved == {"res3", "res4", "res5"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["init"] == f"{trained_model.FILE}, sha256 {digest(whole)}"


def test_another_seed_gives_other_weights(whole, data, tmp_path):
    assert run(data, tmp_path, "--seed", "1") == 0
    assert digest(tmp_path) != digest(whole)


def measured(capsys, weights: Path, *more: str) -> dict[str, str]:
    assert evaluate.main(["--weights", str(weights), *more]) == 0
    head, _, cells = capsys.readouterr().out.splitlines()
    return dict(zip(head.strip("| ").split(" | "), cells.strip("| ").split(" | "), strict=True))


def test_the_outcome_is_measured_on_what_was_held_out(whole, data, capsys):
    capsys.readouterr()
    found = measured(capsys, whole / trained_model.FILE, "--data", str(data / "animals_train"))
    assert found["segments"] == "2"
    assert list(found)[1:] == [
        *("recall at IoU 0.5", "recall at IoU 0.75"),
        *("mIoU (union)", "mIoU (ground_truth)", "pixel accuracy"),
    ]
    assert all(0 <= float(value) <= 100 for value in found.values())
    assert (
        measured(capsys, whole / trained_model.FILE, "--data", str(data / "animals_train"), "--part", "all")["segments"]
        == "4"
    )


def test_what_is_measured_is_what_is_there():
    """Masks that are the segments, one with its class, one with another's."""
    labels = torch.tensor([[-1, 0, 0, 1, 1]])
    masks = torch.tensor([[[True, True, True, False, False]], [[False, False, True, True, True]]])
    assert evaluate.best_overlaps(masks, labels).tolist() == pytest.approx([1, 2 / 3])
    assert evaluate.best_overlaps(masks, torch.full((1, 5), -1)).tolist() == []
    logits = torch.tensor([[9.0, 0, 0], [0, 2, 9]])
    scores = 20 * (2 * masks.float() - 1)
    assert evaluate.label_map(logits, scores).tolist() == [[0, 0, 0, 1, 1]]


def test_other_settings_in_one_folder_are_refused(whole, data, capsys):
    assert run(data, whole, "--seed", "3") == 1
    assert "holds a run with other settings (recipe was" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "error: steps is 0, but must be 1 or more."),
        (("--batch", "0"), "error: batch is 0, but must be 1 or more."),
        (("--workers", "-1"), "error: workers is -1, but must be 0 or more."),
        (("--init", "absent.pth"), "error: There is no file absent.pth."),
        (("--seed", "-1"), "error: seed is -1, but must be 0 or more."),
    ],
)
def test_unusable_settings_are_told(data, tmp_path, capsys, arguments, message):
    assert run(data, tmp_path, *arguments) == 1
    assert error_line(capsys) == message


def test_a_backbone_with_frozen_norms_wants_weights(data, tmp_path, capsys):
    assert command.main(["--data", str(data), "--out", str(tmp_path / "out")]) == 1
    assert error_line(capsys) == (
        "error: r101c begins with trained weights, for its batch norms learn nothing; give --init."
    )
    assert not (tmp_path / "out").exists()


def test_the_clip_of_a_file_is_known_by_its_content(data, tmp_path, capsys):
    clip = tmp_path / "clip.pt"
    clip.write_bytes(b"one")
    assert run(data, tmp_path / "out", "--clip", str(clip), "--steps", "1") == 0
    clip.write_bytes(b"other")
    assert run(data, tmp_path / "out", "--clip", str(clip), "--steps", "1") == 1
    assert "'clip': 'clip.pt, sha256 " in error_line(capsys)


def test_missing_data_is_told_and_leaves_no_folder(tmp_path, capsys):
    assert run(tmp_path / "absent", tmp_path / "out") == 1
    assert "absent holds no folder NAME_train" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_part_without_photos_is_told(whole, data, capsys):
    assert evaluate.main(["--weights", str(whole / trained_model.FILE), "--data", str(data / "street_train")]) == 1
    assert error_line(capsys) == "error: None of the 3 photos is in the part 'held-out'."


def test_unequal_shares_of_a_batch_are_told(data, tmp_path, monkeypatch, capsys):
    three = SimpleNamespace(num_processes=3, destroy_process_group=lambda: None)
    monkeypatch.setattr(command.command, "PartialState", lambda **options: three)
    assert run(data, tmp_path) == 1
    assert error_line(capsys) == "error: A batch of 4 cannot be shared by 3 processes."
