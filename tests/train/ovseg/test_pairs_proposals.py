"""Makers of masks are found by name."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.checkpoint import ReleasedModel
from ovseg_demo.proposals.maskformer.decoder import LayerPredictions
from ovseg_demo.weights import loading
from train.ovseg.maskformer.trained_model import TrainedMaskFormer
from train.ovseg.pairs import proposals

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
        return [LayerPredictions(torch.zeros(1, 3, 8), masks)]


def test_a_search_setting_is_mobile_sam():
    assert proposals.create_proposal_generator("fast", CPU).name == "sam-fast"


def test_a_file_is_a_maskformer_that_was_trained_here(tmp_path, monkeypatch):
    asked = []

    def load(path):
        asked.append(path)
        return TrainedMaskFormer(Halves(), torch.zeros(1, 8), "mini", 64, 128)

    monkeypatch.setattr(proposals.trained_model, "load_trained_maskformer", load)
    path = tmp_path / "maskformer.safetensors"
    path.write_bytes(b"weights")
    maker = proposals.create_proposal_generator(str(path), CPU)
    found = maker.propose(np.zeros((96, 192, 3), np.uint8), lambda _: None)
    assert asked == [path]
    assert maker.name == f"maskformer-maskformer.safetensors, sha256 {hashlib.sha256(b'weights').hexdigest()}"
    assert found.size == (96, 192)
    assert len(found) == 2, "what has no pixel is left out"
    assert [mask[:, :90].all() for mask in found.masks()] == [True, False]
    assert abs(found.masks().mean() - 0.5) < 0.03


@pytest.mark.parametrize(("name", "sizes"), [("ovseg-swinb-vitl14", (640, 960)), ("ovseg-r101c-vitb16", (512, 768))])
def test_a_released_maskformer_reads_photos_at_the_size_of_its_backbone(monkeypatch, name, sizes):
    shown = []
    model = Halves()
    model.register_forward_pre_hook(lambda _, inputs: shown.append(tuple(inputs[0].shape[2:])))
    released = ReleasedModel(name.split("-")[1], {}, {}, torch.zeros(1, 8))
    monkeypatch.setattr(loading, "load_state_dict", lambda checkpoint_id: {"of": checkpoint_id})
    monkeypatch.setattr(
        proposals.checkpoint, "split_checkpoint", lambda state, source: released if state["of"] == name else None
    )
    monkeypatch.setattr(
        proposals.maskformer.checkpoint, "load_maskformer", lambda found, device: model if found is released else None
    )
    maker = proposals.create_proposal_generator(name, CPU)
    assert maker.name == f"maskformer-{name}"
    assert len(maker.propose(np.zeros((96, 144, 3), np.uint8), lambda _: None)) == 2
    assert shown == [sizes]


def test_an_unknown_name_is_an_error_of_one_line():
    with pytest.raises(CheckpointError, match="There is no file balancd"):
        proposals.create_proposal_generator("balancd", CPU)
