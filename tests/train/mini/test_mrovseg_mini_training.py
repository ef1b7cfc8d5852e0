"""Batches and losses of "MROVSeg (mini)": seeds of queries, what is learned, photos without a label, and the result."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.mini_model import CELL, MiniMROVSegModel
from ovseg_demo.models.mini.heads import WIDTH
from tests.helpers.mini_data import KEYS
from train.mini.cross_fitting import in_head_half
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


def test_a_run_leaves_a_model_that_began_as_the_out_of_fold_head(finished_run):
    run = finished_run("mini.mrovseg")
    stored, heads = load_file(run.out / command.FILE), load_file(run.out / "head/mini-heads.safetensors")
    MiniMROVSegModel().load_state_dict(stored)
    torch.testing.assert_close(stored["dense.whole.bias"], heads["dense.whole.bias"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(stored["mean"], heads["dense_mean"])
    assert stored["share"] != 0
    assert json.loads((run.out / "config.json").read_text())["photos"] == {"street_train": 3, "voc_train": 3}


def test_only_photos_that_the_head_has_not_seen_are_encoded(finished_run):
    views = finished_run("mini.mrovseg").out / "views"
    photos = [*KEYS[:3], *KEYS[:3]]
    assert len(list(views.glob("*.safetensors"))) == sum(not in_head_half(key) for key in photos) > 0
