"""Batches and losses of "MROVSeg (mini)": seeds of queries, what is learned, photos without a label, and the result."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.mini_model import CELL, MiniMROVSegModel
from ovseg_demo.models.mini.heads import WIDTH, Heads
from ovseg_demo.weights.loading import load_for_inference
from tests.helpers.mini_data import KEYS, VOC, two_halves, write_labelled_set
from train.mini.mrovseg import __main__ as command
from train.mini.mrovseg.batches import UNLABELLED, majority
from train.mini.mrovseg.training import MROVSegMiniTraining


@pytest.fixture
def training() -> MROVSegMiniTraining:
    torch.manual_seed(0)
    return MROVSegMiniTraining(MiniMROVSegModel())


def batch(labels: torch.Tensor) -> dict[str, list]:
    low, high = torch.randn(2, WIDTH, *labels.shape)
    texts = F.normalize(torch.randn(3, 384), dim=1)
    photo = {"low": low, "high": high, "texts": texts, "labels": labels, "seeds": majority(labels, 2)}
    return {name: [value] for name, value in (photo | {"excluded": torch.zeros(3, 3, dtype=torch.bool)}).items()}


def test_a_query_is_taught_what_most_of_its_cell_shows():
    labels = torch.full((CELL, 4 * CELL), UNLABELLED)
    labels[:, :CELL] = 1
    labels[: CELL // 2 + 1, CELL : 2 * CELL] = 0
    labels[: CELL // 2, 2 * CELL : 3 * CELL] = 0  # half is no majority
    assert majority(labels, 2).tolist() == [1, 0, UNLABELLED, UNLABELLED]


def test_of_the_dense_head_only_the_last_layer_learns(training):
    labels = torch.zeros(2 * CELL, 2 * CELL, dtype=torch.int64)
    labels[:, CELL:] = 1
    losses = training(batch(labels))
    torch.stack(list(losses.values())).sum().backward()
    learned = {name for name, value in training.model.named_parameters() if value.grad is not None}
    assert {name for name in learned if name.startswith("dense.")} == {"dense.out.weight", "dense.out.bias"}
    assert {"fusion.across_slices.weight", "queries.key.weight", "share"} <= learned
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_a_photo_without_a_label_teaches_nothing(training):
    losses = training(batch(torch.full((2 * CELL, CELL), UNLABELLED)))
    assert [loss.item() for loss in losses.values()] == [0] * 4


def test_a_run_leaves_a_model_that_began_as_the_bundled_dense_head(finished_run):
    run = finished_run("mini.mrovseg")
    stored, heads = load_file(run.out / command.FILE), load_for_inference(Heads(), "mini-heads")
    MiniMROVSegModel().load_state_dict(stored)
    torch.testing.assert_close(stored["dense.whole.bias"], heads.dense.whole.bias)
    torch.testing.assert_close(stored["mean"], heads.dense_mean)
    assert stored["share"] != 0
    assert json.loads((run.out / "config.json").read_text())["photos"] == {"animals_train": 2, "street_train": 3}


def test_sets_that_the_dense_head_knows_are_left_out(tmp_path, capsys):
    write_labelled_set(tmp_path / "voc_train", VOC, {KEYS[0]: two_halves(0, 1)})
    assert command.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--smoke"]) == 1
    assert "that the bundled dense head was not trained on" in capsys.readouterr().err
