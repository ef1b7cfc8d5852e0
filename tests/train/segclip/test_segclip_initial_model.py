"""Training begins with a plain CLIP as it is; what is new is drawn as published, and follows from the seed."""

import pytest
import torch

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.clip.weights import build_empty_clip
from tests.helpers import segclip_models
from tests.helpers.oracle import weights
from train.segclip import initial_model


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """The path of a plain CLIP, which is narrow."""
    segclip_models.register(tmp_path)
    monkeypatch.setattr(initial_model, "ARCHITECTURE", segclip_models.ARCHITECTURE)
    monkeypatch.setattr(initial_model.factory, "clip_architecture", lambda state, name: segclip_models.ARCHITECTURE)
    shapes = {name: value.shape for name, value in build_empty_clip(segclip_models.ARCHITECTURE).state_dict().items()}
    torch.save(weights(shapes), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


def test_a_plain_clip_gets_a_new_group_module_and_a_branch(plain):
    clip, branch = initial_model.load_initial_model(str(plain), 0)
    began = torch.load(plain, weights_only=True)
    state = clip.state_dict()
    assert all(torch.equal(state[name], value) for name, value in began.items())
    new = {name.removeprefix("visual.group."): value for name, value in state.items() if name not in began}
    assert new.keys() == clip.visual.group.state_dict().keys()
    new |= {f"branch.{name}": value for name, value in branch.state_dict().items()}
    for name in ("centres", "region_mlp.1.weight", "cross_attention.1.attn.out_proj.weight", "branch.predict.weight"):
        value = new[name.replace("branch.", "branch.decoder.")]
        assert value.std().item() == pytest.approx(0.02, rel=0.1), name
    assert not branch.mixing.bias.any()
    assert not clip.visual.group.region_mlp[1].bias.any()


def test_what_is_new_follows_from_the_seed(plain):
    def drawn(seed: int) -> list[torch.Tensor]:
        clip, branch = initial_model.load_initial_model(str(plain), seed)
        return [clip.visual.group.centres, branch.decoder.predict.weight]

    one, same, other = drawn(0), drawn(0), drawn(1)
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one, other))


def test_another_architecture_is_told(plain, monkeypatch):
    monkeypatch.setattr(initial_model, "ARCHITECTURE", "ViT-B-16-quickgelu")
    with pytest.raises(CheckpointError, match=r"clip\.pt is no CLIP ViT-B/16, which SegCLIP begins with\.$"):
        initial_model.load_initial_model(str(plain), 0)
