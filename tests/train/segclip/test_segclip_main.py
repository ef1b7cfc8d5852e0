"""The smoke run of SegCLIP's training on made-up photos: the method that reads its file, and its settings."""

import json
import os
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ovseg_demo import image, vocabulary
from ovseg_demo.methods import windows
from ovseg_demo.methods.segclip.encoder import load_encoder
from ovseg_demo.methods.segclip.method import SegCLIP
from ovseg_demo.methods.segclip.options import SegCLIPOptions
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights import catalogue
from tests.helpers.commands import error_line
from tests.helpers.oracle import drawn, fixture
from tests.helpers.processes import run_in_two_processes
from train.segclip import __main__ as command
from train.segclip import batches, initial_model, saving, training


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("segclip").data


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("segclip").out


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", "--steps", "1", *more])


def test_a_run_leaves_its_configuration_log_superpixels_and_weights(whole):
    assert sorted(os.listdir(whole)) == ["config.json", "log.csv", "segclip.safetensors", "state.pt", "superpixels"]
    assert json.loads((whole / "config.json").read_text())["captions"] == {"told_train": 4, "web_train": 3}
    head, *lines = (whole / "log.csv").read_text().splitlines()
    assert head == "step,seconds,learning_rate,loss,contrastive,reconstruction,superpixels"
    assert [line.split(",")[0] for line in lines] == ["2", "4", "6"]


def test_its_file_has_the_released_names_and_learns_all_but_embeddings(whole):
    ended = load_file(whole / saving.FILE)
    published = fixture("segclip_keys.json")["tensors"]
    text = "clip.transformer.resblocks."
    missing = {name for name in published if name.startswith(text) and int(name.removeprefix(text).split(".")[0]) > 1}
    assert ended.keys() == published.keys() - missing, "two blocks in place of twelve"
    clip, _ = initial_model.tiny_model(0)
    began = {f"clip.{name}": value for name, value in clip.state_dict().items()}
    same = {name for name, value in began.items() if name in ended and torch.equal(ended[name], value)}
    assert same == {
        "clip.token_embedding.weight",
        "clip.positional_embedding",
        *(f"clip.visual.{part}" for part in ("class_embedding", "positional_embedding", "conv1.weight")),
        *(f"clip.visual.ln_pre.{kind}" for kind in ("weight", "bias")),
    }


def test_the_method_segclip_own_loads_the_file_and_segments(data, one_step, tmp_path, monkeypatch):
    """After one step, strictly, under its id in the catalogue."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path / "checkpoints")
    monkeypatch.setattr(windows, "WINDOW", 64)
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(one_step / saving.FILE, catalogue.get("segclip-own").path)
    config = tmp_path / "tiny-smoke-segclip-quickgelu.json"
    config.write_text(json.dumps(initial_model.TINY_CONFIG))
    open_clip.add_model_config(config)
    method = SegCLIP(load_encoder("segclip-own", "cpu", config.stem))
    photo = image.load(data / "told_train/images/a.jpg")
    stages = Stages(Cache(10**8), SerialWorker(), ignore_progress)
    found = method.segment(photo, vocabulary.parse("cat, dog, pizza"), SegCLIPOptions(background=0.0), stages)
    assert found.labels.shape == photo.pixels.shape[:2]
    assert set(found.labels.flatten().tolist()) <= {0, 1, 2}


@pytest.fixture(scope="module")
def one_step(data, tmp_path_factory) -> Path:
    """The folder of a run of one step."""
    out = tmp_path_factory.mktemp("one") / "step"
    assert run(data, out, "--superpixels", str(out.parent / "kept")) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return out


@pytest.mark.parametrize(
    "setting", [("--seed", "1"), ("--mix-batch",), ("--recipe", "paper"), ("--chunk", "4"), ("--precision", "bf16")]
)
def test_settings_change_the_weights(data, one_step, tmp_path, setting):
    assert run(data, tmp_path, "--superpixels", str(one_step.parent / "kept"), *setting) == 0
    one, other = (load_file(out / saving.FILE) for out in (one_step, tmp_path))
    assert one.keys() == other.keys()
    assert not torch.equal(one["clip.visual.proj"], other["clip.visual.proj"])
    assert {value.dtype for value in other.values()} == {torch.float32}
    embeddings = "clip.token_embedding.weight"
    assert torch.equal(one[embeddings], other[embeddings]) is (setting[0] not in ("--seed", "--recipe"))


def test_superpixels_may_lie_elsewhere(one_step):
    assert any((one_step.parent / "kept").rglob("*.png"))
    assert not (one_step / "superpixels").exists()


def test_two_processes_in_chunks_learn_what_one_does_from_the_whole_batch(data, tmp_path):
    """By the gradients that AdamW's first averages hold."""
    asked = ["--data", str(data), "--smoke", "--steps", "1", "--superpixels", str(tmp_path / "kept")]
    printed = run_in_two_processes(run_without_chance, [*asked, "--out", str(tmp_path / "two"), "--chunk", "1"])
    assert json.loads(printed[-1])["file"] == saving.FILE
    assert run_without_chance([*asked, "--out", str(tmp_path / "one"), "--chunk", "4"]) == 0
    two, one = (torch.load(tmp_path / out / "state.pt", weights_only=True) for out in ("two", "one"))
    assert (two["processes"], one["processes"]) == (2, 1)
    averages = [[part["exp_avg"] for part in state["optimizer"]["state"].values()] for state in (two, one)]
    assert len(averages[0]) > 200
    for found, expected in zip(*averages, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item() + 1e-8)


def run_without_chance(arguments: list[str]) -> int:
    """The command on whole photos; of each image the same patches are hidden, and regions have the same noise."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batches, "draw_part", lambda size, *_: (0, 0, *size))
        patched.setattr(training, "draw_kept", lambda images, patches, device: torch.tensor([[2, 7, 9]] * images))
        noise = {count: drawn(f"noise {count}", (1, 8, count)).exp() for count in (16, 3)}
        patched.setattr(torch.Tensor, "exponential_", lambda values: values.copy_(noise[values.shape[2]]))
        return command.main(arguments)


def test_published_runs_see_every_caption_ten_times():
    parsed = command._parser().parse_args(["--data", "d", "--out", "o"])
    schedule = command._schedule(parsed, 100)
    assert (schedule.steps, schedule.warmup) == (1000, 150)
    recipe = command._recipe(parsed)
    assert (recipe.batch, recipe.chunk, recipe.mixes_batch, recipe.form) == (768, None, False, "code")


def test_a_batch_beyond_the_captions_and_a_clip_that_does_not_fit_are_told(data, tmp_path, capsys):
    assert run(data, tmp_path / "out", "--batch", "8") == 1
    assert error_line(capsys) == (
        "error: There are 7 captions to train on, but a step takes 8; choose a smaller --batch."
    )
    torch.save(initial_model.tiny_model(0)[0].state_dict(), tmp_path / "clip.pt")
    asked = ["--data", str(data), "--out", str(tmp_path / "out"), "--clip", str(tmp_path / "clip.pt")]
    assert command.main(asked) == 1
    assert "clip.pt is no CLIP" in error_line(capsys)
    assert not (tmp_path / "out").exists()
