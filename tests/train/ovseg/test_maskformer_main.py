"""The smoke run of MaskFormer's training on made-up folders: whole, again, interrupted, spread and measured."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.mini_data import spelling
from train.ovseg.maskformer import __main__ as command
from train.ovseg.maskformer import evaluate, trained_model


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("ovseg.maskformer").data


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
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("ovseg.maskformer").out


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


def test_a_missing_file_of_weights_is_told(data, tmp_path, capsys):
    assert run(data, tmp_path, "--init", "absent.pth") == 1
    assert error_line(capsys) == "error: There is no file absent.pth."


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


def test_a_part_without_photos_is_told(whole, data, capsys):
    assert evaluate.main(["--weights", str(whole / trained_model.FILE), "--data", str(data / "street_train")]) == 1
    assert error_line(capsys) == "error: None of the 3 photos is in the part 'held-out'."
