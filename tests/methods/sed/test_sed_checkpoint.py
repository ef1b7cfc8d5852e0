"""The released files of SED find their places, and what is no such file is told."""

import pytest
import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.sed.checkpoint import ReleasedModel, join_checkpoint, split_checkpoint
from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.loading import ARCHITECTURES
from ovseg_demo.models.clip import convnext
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import fixture

FILES = {"convnext_base_w_320": "sed_convnext_b_keys.json", "convnext_large_d_320": "sed_convnext_l_keys.json"}
BOTH = pytest.mark.parametrize("architecture", FILES)
PREFIX = "sem_seg_head.predictor."


def published(architecture: str) -> dict[str, Tensor]:
    """A released file's tensors, without their numbers."""
    tensors = fixture(FILES[architecture])["tensors"]
    return {name: torch.empty(shape, device="meta") for name, shape in tensors.items()}


def loaded(released: ReleasedModel, architecture: str) -> None:
    """The decoder without its numbers, as it is loaded from "some.pth"."""
    with torch.device("meta"):
        decoder = Decoder(ARCHITECTURES[architecture])
    load_strict(decoder, released.decoder, "some.pth")


@pytest.mark.parametrize(
    ("architecture", "count", "clip"), [("convnext_base_w_320", 608, 493), ("convnext_large_d_320", 658, 543)]
)
def test_every_tensor_of_a_released_file_has_its_place(architecture, count, clip):
    state = published(architecture)
    released = split_checkpoint({"model": state, "iteration": 79_999})
    assert (len(state), len(released.clip), len(released.decoder)) == (count, clip, 115)
    with torch.device("meta"):
        decoder = Decoder(ARCHITECTURES[architecture]).state_dict()
    assert {n: t.shape for n, t in decoder.items()} == {n: t.shape for n, t in released.decoder.items()}
    loaded(released, architecture)


@BOTH
def test_the_clip_inside_is_that_of_open_clip(architecture, monkeypatch):
    monkeypatch.setattr(convnext, "load_clip_weights", lambda clip, *_: clip)
    wanted = convnext.build_convnext_clip(architecture, {}, "").state_dict()
    found = split_checkpoint(published(architecture)).clip
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}


@BOTH
def test_tensors_may_stand_in_the_file_itself(architecture):
    state = published(architecture)
    direct, under_model = split_checkpoint(state), split_checkpoint({"model": state})
    assert (direct.clip.keys(), direct.decoder.keys()) == (under_model.clip.keys(), under_model.decoder.keys())


@BOTH
def test_joining_undoes_splitting(architecture):
    state = published(architecture)
    joined = join_checkpoint(split_checkpoint(state))
    assert joined.keys() == state.keys()
    assert all(joined[name] is state[name] for name in state)


@BOTH
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1.weight", "embed.weight"),
        ("decoder2.cnext.gamma", "stages.1.spatial.layer_scale"),
        ("decoder_corr_guidance_projection.2.0.bias", "cost_skips.2.bias"),
        ("head.bias", "heads.3.bias"),
    ],
)
def test_what_the_decoder_lacks_or_has_too_much_is_named_in_one_line(architecture, theirs, ours):
    state = published(architecture)
    tensor = state.pop(f"{PREFIX}transformer.{theirs}")
    with pytest.raises(CheckpointError, match=rf"^some\.pth .*: 1 missing \({ours}\)\.$"):
        loaded(split_checkpoint(state), architecture)
    state[f"{PREFIX}transformer.{theirs}"] = tensor[None]
    with pytest.raises(CheckpointError, match=rf": 1 misshapen \({ours}\)\.$"):
        loaded(split_checkpoint(state), architecture)
    state[f"{PREFIX}transformer.{theirs}"] = tensor
    state[f"{PREFIX}transformer.head3.weight"] = tensor
    with pytest.raises(CheckpointError, match=r": 1 unexpected \(head3\.weight\)\.$"):
        loaded(split_checkpoint(state), architecture)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": "weights"},
        {"model": {}},
        {"weight": 1.0},
        {"weight": torch.zeros(1)},
        {f"{PREFIX}clip_model.logit_scale": torch.zeros(1), "backbone.conv1.weight": torch.zeros(1)},
    ],
)
def test_other_files_are_told_apart(content):
    with pytest.raises(
        CheckpointError, match=r"^Some\.pth (is no SED model: it has (weight|backbone)|holds no weights)"
    ):
        split_checkpoint(content, "Some.pth")
