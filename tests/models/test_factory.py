"""Models by the names of a command line."""

import pytest
import torch
from safetensors.torch import save_file

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models import factory
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.weights import catalogue


def test_the_architecture_follows_from_the_shapes():
    for width, patch, name in ((768, 16, "ViT-B-16-quickgelu"), (1024, 14, "ViT-L-14-quickgelu")):
        assert factory.clip_architecture({"visual.conv1.weight": torch.empty(width, 3, patch, patch)}, "x") == name
    for state in ({}, {"visual.conv1.weight": torch.empty(768, 3, 32, 32)}, {"visual.conv1.weight": torch.empty(3)}):
        with pytest.raises(CheckpointError, match=r"^x\.pt is no CLIP ViT-B-16-quickgelu or ViT-L-14-quickgelu\.$"):
            factory.clip_architecture(state, "x.pt")


def test_mini_and_other_heads_of_it():
    heads = catalogue.get("mini-heads").path
    mini, other = factory.create_model("mini"), factory.create_model(str(heads))
    assert isinstance(mini, MiniModel)
    assert isinstance(other, MiniModel)
    assert torch.equal(mini.embed_texts(["cat"]), other.embed_texts(["cat"]))


def test_a_file_with_an_image_tower_of_clip_is_read_as_clip(tmp_path):
    save_file({"visual.conv1.weight": torch.zeros(768, 3, 16, 16)}, tmp_path / "adapted.safetensors")
    with pytest.raises(CheckpointError, match="does not fit CLIP: 301 missing"):
        factory.create_model(str(tmp_path / "adapted.safetensors"))


@pytest.mark.parametrize("name", ["nothing.pt", "clip-vit-b16"])
def test_what_is_not_here_is_told(name, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no file nothing\.pt|is not here"):
        factory.create_model(name)
