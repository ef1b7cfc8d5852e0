"""CLIP by open_clip, with random weights: no weight file of it can be had where the tests run."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from ovseg_demo import checkpoints
from ovseg_demo.checkpoints import Checkpoint
from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.vlm.open_clip import OpenClipVLM, clip_state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures"
ARCHITECTURE = "ViT-B-16-quickgelu"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return open_clip.create_model(ARCHITECTURE, pretrained=None).state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A file as OpenAI published them: half precision, three integers beside the tensors."""
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    extras = {
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    torch.save({k: v.half() for k, v in state.items()} | extras, path)
    return path


@pytest.fixture
def catalogued(file, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", file.parent)
    entry = Checkpoint("clip-test", "Test", file.name, "MIT", False, ())
    monkeypatch.setattr(checkpoints, "catalogue", lambda: {entry.id: entry})
    return entry


def test_the_names_and_shapes_are_those_of_the_published_files(state):
    """OVSeg's and OpenAI's files share these names; the list was dumped from the reference's modules."""
    published = json.loads((FIXTURES / "clip_vitb16_keys.json").read_text())["tensors"]
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published


def test_wrappers_are_taken_off(state):
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v.half() for k, v in state.items()}}
    unwrapped = clip_state_dict(wrapped)
    assert unwrapped.keys() == state.keys()
    assert all(v.dtype == torch.float32 for v in unwrapped.values())
    with pytest.raises(CheckpointError, match="no CLIP weights"):
        clip_state_dict({"model": "hello"})


def test_regions_and_words_meet(catalogued, random):
    vlm = OpenClipVLM(ARCHITECTURE, catalogued.id)
    texts = vlm.embed_texts(["cat", "dog", "🐈"])
    assert texts.shape == (3, 512)
    assert torch.allclose(texts.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(texts[0], texts[2], atol=1e-5)

    masks = np.zeros((3, 40, 60), bool)
    masks[0, 5:20, 5:30] = masks[1, 20:, 30:] = masks[2, 3, 4] = True
    image = random.integers(0, 255, (40, 60, 3), np.uint8)
    news = []
    regions = vlm.embed_regions(image, MaskProposals.from_masks(masks, np.ones(3)), news.append)
    assert regions.shape == (3, 512)
    assert news == [1.0]
    logits = vlm.logits(regions, texts)
    assert logits.shape == (3, 3)
    assert torch.allclose(logits, 100 * torch.cosine_similarity(regions[:, None], texts[None], dim=2), atol=1e-3)
    none = MaskProposals.from_masks(masks[:0], np.ones(0))
    assert vlm.embed_regions(image, none, news.append).shape == (0, 512)
    assert vlm.embed_rival(["cat"]).shape == (1, 512)


def test_the_activation_is_the_one_the_weights_were_trained_with(catalogued):
    vlm = OpenClipVLM(ARCHITECTURE, catalogued.id)
    kinds = {type(m).__name__ for m in vlm._model.modules()}
    assert "QuickGELU" in kinds
    assert "GELU" not in kinds


def test_a_file_of_another_architecture_is_told(catalogued, state, file):
    torch.save({k: v for k, v in state.items() if "resblocks.11" not in k}, file)
    with pytest.raises(CheckpointError, match=r"24 missing \(transformer.resblocks.11"):
        OpenClipVLM(ARCHITECTURE, catalogued.id)
