"""The smoke run of TagCLIP's training on made-up folders: whole, again, interrupted, in stages, and with bad input."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from eval import evaluate
from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, TrainingInfo
from ovseg_demo.weights import catalogue, reading
from tests.helpers.commands import error_line
from tests.helpers.mini_data import shrunk, two_halves
from tests.helpers.processes import run_in_two_processes
from train.common.sampling import StepGenerator
from train.tagclip import __main__ as command
from train.tagclip import initial_model, saving


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("tagclip").data


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", "--like", "voc", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / saving.FILE).read_bytes()).hexdigest()


def rows(out: Path) -> list[list[str]]:
    """log.csv less its seconds."""
    return [line.split(",")[:1] + line.split(",")[2:] for line in (out / "log.csv").read_text().splitlines()]


def about(out: Path) -> TrainingInfo:
    return TrainingInfo.from_json(reading.read_metadata(out / saving.FILE)[METADATA_KEY], saving.FILE)


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("tagclip").out


def test_a_run_leaves_its_configuration_log_and_weights(whole):
    assert sorted(os.listdir(whole)) == ["config.json", "log.csv", "state.pt", "tagclip.safetensors"]
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"animals_train": 3, "street_train": 3}
    assert (config["setting"], config["protocol"]) == ("inductive", "published")
    assert config["unseen"] == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]
    head, *lines = rows(whole)
    assert head == ["step", "learning_rate", "loss", "masks", "dice", "trusty"]
    assert [line[0] for line in lines] == ["2", "4", "6"]
    assert np.isfinite(np.array(lines, float)).all()


def test_the_file_says_how_it_was_trained(whole):
    assert about(whole) == TrainingInfo(("cat", "dog", "road", "sky"), "photo", seen_penalty=True)


def test_prompts_and_decoder_learn_and_all_else_of_clip_stays(whole):
    began, ended = initial_model.tiny_clip(2, 0).state_dict(), load_file(whole / saving.FILE)
    names = {name: f"backbone.{name[7:]}" if name.startswith("visual.") else f"text_encoder.{name}" for name in began}
    moved = {name for name, kept in names.items() if kept in ended and not torch.equal(began[name], ended[kept])}
    assert moved == {name for name in began if "prompt" in name}
    assert {name for name, kept in names.items() if kept not in ended} == {"logit_scale"}
    assert ended["decode_head.disc_token"].shape == (1, 64)
    assert all(value.isfinite().all() for value in ended.values())


def test_a_run_may_stop_with_its_weights_and_go_on(data, whole, tmp_path):
    assert run(data, tmp_path, "--stop-after", "3") == 0
    assert digest(tmp_path) != digest(whole)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
    assert run(data, tmp_path) == 0
    assert digest(tmp_path) == digest(whole)


def test_every_parameter_has_the_published_rate_and_decays(whole):
    [group] = torch.load(whole / "state.pt", weights_only=True)["optimizer"]["param_groups"]
    assert (group["highest"], group["weight_decay"], group["betas"]) == (2e-4, 0.01, (0.9, 0.999))


def test_self_training_goes_on_from_an_inductive_file(data, whole, tmp_path):
    begin = whole / saving.FILE
    assert run(data, tmp_path, "--setting", "transductive", "--start", str(begin), "--like", "coco") == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["recipe"]["clip"] == f"{saving.FILE}, sha256 {digest(whole)}"
    assert about(tmp_path).seen_penalty is False
    before, after = load_file(begin), load_file(tmp_path / saving.FILE)
    assert before.keys() == after.keys(), "as COCO-Stuff's published model, it keeps the trusty token"
    assert not torch.equal(before["decode_head.disc_token"], after["decode_head.disc_token"])
    gone = [name for name in before if (before[name] - after[name]).abs().max() > 0.05]
    assert gone == [], "six small steps away from where it began"


def test_self_training_for_voc_leaves_the_trusty_token_out(data, whole, tmp_path):
    begin = str(whole / saving.FILE)
    assert run(data, tmp_path, "--setting", "transductive", "--start", begin, "--protocol", "strict") == 0
    names = load_file(tmp_path / saving.FILE).keys()
    assert "decode_head.disc_token" not in names
    assert "decode_head.relationship_discriptor.q_proj.weight" in names
    assert about(tmp_path).seen_words == ("cat", "dog", "road", "sky")


def test_supervised_training_is_taught_every_class(data, tmp_path):
    assert run(data, tmp_path, "--setting", "supervised") == 0
    assert about(tmp_path) == TrainingInfo(("cat", "dog", "sheep", "road", "sky"), "photo", seen_penalty=False)


def test_zegclip_has_no_trusty_token_and_no_learner(data, tmp_path):
    assert run(data, tmp_path, "--model", "zegclip", "--unseen", "dog, SKY") == 0
    names = load_file(tmp_path / saving.FILE).keys()
    assert {name.split(".")[1] for name in names if name.startswith("decode_head.")} == {"q_proj", "decoder_1"}
    assert not [name for name in names if "self_attn" in name or "disc_token" in name]
    assert rows(tmp_path)[0][3:] == ["masks", "dice"]
    assert about(tmp_path).seen_words == ("cat", "sheep", "road")
    assert json.loads((tmp_path / "config.json").read_text())["recipe"]["terms"]["masks"] == 100


def test_the_papers_losses_have_that_of_classes(data, tmp_path):
    assert run(data, tmp_path, "--recipe", "paper") == 0
    assert rows(tmp_path)[0][3:] == ["masks", "dice", "classes", "trusty"]


@pytest.mark.parametrize("setting", [("--seed", "1"), ("--protocol", "strict"), ("--unseen", "cat")])
def test_settings_change_the_weights(whole, data, tmp_path, setting):
    assert run(data, tmp_path, *setting) == 0
    assert digest(tmp_path) != digest(whole)


@pytest.mark.parametrize(
    ("dataset", "like", "templates"),
    [("voc_20_train_aug", None, "photo"), ("coco_stuff_171_train", None, "scenes"), (None, None, "scenes")],
)
def test_settings_follow_the_data(dataset, like, templates):
    arguments = ["--data", "d", "--out", "o", *(("--dataset", dataset) if dataset else ())]
    chosen = command._parser().parse_args(arguments)
    assert command._recipe(chosen).templates == templates
    assert ("sofa" in command._unseen(chosen)) is (templates == "photo")
    assert ("playingfield" in command._unseen(chosen)) is (templates == "scenes")


def test_a_batch_is_of_one_set_and_strict_batches_hide_unseen_classes(data, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(command, "fit", lambda module, draw, *_, **options: given.append(draw) or module)
    assert run(data, tmp_path / "published", "--batch", "4") == 0
    assert run(data, tmp_path / "strict", "--batch", "4", "--protocol", "strict") == 0
    seen = []
    for draw in given:
        batches = [draw(StepGenerator(0, step, 0, 1)) for step in range(8)]
        assert {len(set(batch["sets"])) for batch in batches} == {1}
        seen.append(
            {label for batch in batches if batch["sets"][0] == 0 for label in batch["labels"].unique().tolist()}
        )
    assert (2 in seen[0], 2 in seen[1]) == (True, False), "the sheep"


def test_half_precision_runs(data, tmp_path):
    assert run(data, tmp_path, "--precision", "bf16", "--steps", "1") == 0
    assert {value.dtype for value in load_file(tmp_path / saving.FILE).values()} == {torch.float32}


def test_two_processes_share_a_batch(data, tmp_path):
    out = tmp_path / "out"
    asked = ["--data", str(data), "--out", str(out), "--smoke", "--steps", "2", "--like", "voc", "--protocol", "strict"]
    printed = run_in_two_processes(command.main, asked)
    assert json.loads(printed[-1])["file"] == saving.FILE
    assert torch.load(out / "state.pt", weights_only=True)["processes"] == 2


def test_what_was_trained_is_evaluated_on_another_benchmark(whole, tmp_path, capsys, monkeypatch):
    """PASCAL-Context with its background as a word, without weighting and without a seen_penalty."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path / "checkpoints")
    shutil.copytree(whole, tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / saving.FILE).rename(catalogue.get("tagclip-own").path)
    home = tmp_path / "VOCdevkit/VOC2010"
    for part in ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext"):
        (home / part).mkdir(parents=True)
    shrunk("pizza").save(home / "JPEGImages/a.jpg")
    Image.fromarray(two_halves(0, 59)).save(home / "SegmentationClassContext/a.png")
    (home / "ImageSets/SegmentationContext/val.txt").write_text("a")
    asked = ["--dataset", "context_60b", "--root", str(tmp_path), "--method", "tagclip-own"]
    out = tmp_path / "out"
    assert evaluate.main([*asked, "--no-trusty", "--recipe", "paper", "--out", str(out), "--device", "cpu"]) == 0
    [report] = out.glob("context_60b/*/report.json")
    content = json.loads(report.read_text())
    assert content["failures"] == []
    assert "| tagclip-own |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--unseen", " , "), "--unseen names no word."),
        (("--unseen", "zebra"), "No set has a class of the name zebra, which is to be unseen."),
        (("--unseen", "road,sky"), "No mask of street_train shows a seen class."),
        (("--setting", "supervised", "--protocol", "strict"), "In supervised training no class is unseen; leave"),
        (("--setting", "supervised", "--unseen", "cat"), "In supervised training no class is unseen; leave"),
        (("--setting", "transductive"), "Transductive training, and no other, goes on from an inductive model"),
        (("--start", "any.safetensors"), "Transductive training, and no other, goes on from an inductive model"),
        (("--model", "zegclip", "--recipe", "paper"), "ZegCLIP's losses are the same in paper and code; leave"),
        (("--setting", "transductive", "--start", "gone.safetensors"), "There is no file gone.safetensors."),
    ],
)
def test_unusable_settings_are_told(data, tmp_path, capsys, arguments, message):
    assert run(data, tmp_path / "out", *arguments) == 1
    assert error_line(capsys).startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_a_clip_and_a_model_to_begin_with_exclude_each_other(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(data, tmp_path, "--clip", "clip-vit-b16", "--start", "any")
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_start_of_another_recipe_is_told(data, whole, tmp_path, capsys, monkeypatch):
    smoke = command.recipes.smoke
    monkeypatch.setattr(command.recipes, "smoke", lambda recipe: command.replace(smoke(recipe), prompts=3))
    begin = str(whole / saving.FILE)
    assert run(data, tmp_path / "out", "--setting", "transductive", "--start", begin) == 1
    assert error_line(capsys) == f"error: {saving.FILE} has 2 prompts a layer, not 3; choose another --like."


def test_missing_data_and_a_clip_that_does_not_fit_are_told(data, tmp_path, capsys):
    assert run(tmp_path / "absent", tmp_path / "out") == 1
    assert "absent holds no folder NAME_train" in error_line(capsys)
    torch.save(initial_model.tiny_clip(2, 0).state_dict(), tmp_path / "clip.pt")
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--like", "voc"]
    assert command.main([*arguments, "--clip", str(tmp_path / "clip.pt")]) == 1
    assert "clip.pt is no CLIP" in error_line(capsys)
    assert not (tmp_path / "out").exists()
