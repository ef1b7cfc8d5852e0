"""Makers of masks are found by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer import Predictions
from train.maskformer.files import Trained
from train.pairs import proposals

CPU = torch.device("cpu")


class Halves(nn.Module):
    """In place of a MaskFormer: the left half, the right half, and a mask of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.device = nn.Parameter(torch.zeros(()))

    def forward(self, images, every_layer):
        height, width = images.shape[2] // 4, images.shape[3] // 4
        masks = torch.full((1, 3, height, width), -9.0)
        masks[0, 0, :, : width // 2] = masks[0, 1, :, width // 2 :] = 9.0
        return [Predictions(torch.zeros(1, 3, 8), masks)]


def test_a_search_setting_is_mobile_sam():
    assert proposals.load("fast", CPU).name == "sam-fast"


def test_a_file_is_a_maskformer_that_was_trained_here(monkeypatch):
    asked = []

    def load(path):
        asked.append(path)
        return Trained(Halves(), torch.zeros(1, 8), "mini", 64, 128)

    monkeypatch.setattr(proposals.files, "load", load)
    maker = proposals.load("runs/maskformer.safetensors", CPU)
    found = maker.propose(np.zeros((96, 192, 3), np.uint8), lambda _: None)
    assert asked == [Path("runs/maskformer.safetensors")]
    assert maker.name == "maskformer-runs/maskformer.safetensors"
    assert found.size == (96, 192)
    assert len(found) == 2, "what has no pixel is left out"
    assert [mask[:, :90].all() for mask in found.masks()] == [True, False]
    assert abs(found.masks().mean() - 0.5) < 0.03


def test_an_unknown_name_is_an_error_of_one_line():
    with pytest.raises(CheckpointError, match="There is no file balancd"):
        proposals.load("balancd", CPU)
