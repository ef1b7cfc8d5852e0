"""Trained files of SegCLIP find their places, and what is no such file is told."""

import pytest
import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.segclip.checkpoint import join_checkpoint, split_checkpoint
from ovseg_demo.methods.segclip.model import build_empty_segclip
from ovseg_demo.methods.segclip.reconstruction import reconstruction_branch
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import fixture

GROUP = "clip.visual.transformer.semantic_layer2."


@pytest.fixture
def released() -> dict[str, Tensor]:
    """The tensors of the released file, without their numbers."""
    shapes = fixture("segclip_keys.json")["tensors"]
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_every_tensor_of_the_released_file_has_its_place(released):
    clip, tower = build_empty_segclip()
    parts = split_checkpoint(released)
    assert len(released) == 415 == len(parts.clip) + len(parts.reconstruction)
    assert len(parts.reconstruction) == 70
    load_strict(clip, parts.clip, "segclip.bin")
    with torch.device("meta"):
        load_strict(reconstruction_branch(tower), parts.reconstruction, "segclip.bin")
    assert {name: value.shape for name, value in join_checkpoint(parts).items()} == {
        name: value.shape for name, value in released.items()
    }


def test_every_tensor_goes_where_its_name_says(released):
    """Tensors of one shape are many, so that the shapes alone would not tell an exchange."""
    numbered = {name: torch.tensor(float(number)) for number, name in enumerate(released)}
    parts = split_checkpoint({f"module.{name}": value for name, value in numbered.items()})
    for ours, published in {
        "visual.transformer.resblocks.9.ln_1.bias": "clip.visual.transformer.layers0.9.ln_1.bias",
        "visual.transformer.resblocks.11.mlp.c_fc.bias": "clip.visual.transformer.layers2.1.mlp.c_fc.bias",
        "transformer.resblocks.11.ln_2.weight": "clip.transformer.resblocks.11.ln_2.weight",
        "visual.group.patch_norm.bias": f"{GROUP}norm.bias",
        "visual.group.centre_norm.bias": f"{GROUP}cross_ln.bias",
        "visual.group.cross_attention.1.query_norm.bias": f"{GROUP}cross_att.1.ln_x.bias",
        "visual.group.region_mlp.3.bias": f"{GROUP}proj_o.mlp.fc2.bias",
    }.items():
        assert parts.clip[ours] == numbered[published]
    assert parts.reconstruction["blocks.1.ln_2.bias"] == numbered["clip.visual.transformer.layers_mae2.1.ln_2.bias"]
    assert parts.reconstruction["decoder.predict.bias"] == numbered["vis_mae_decoder.decoder_pred.bias"]


def test_a_file_without_the_pixel_decoder_is_one_too(released):
    parts = split_checkpoint({name: value for name, value in released.items() if not name.startswith("vis_mae")})
    assert (len(parts.clip), len(parts.reconstruction)) == (345, 26)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head.bias", r"some\.bin is no SegCLIP: it has head\.bias"),
        ("vis_mae_decoder.extra", r"it has vis_mae_decoder\.extra"),
        ("clip.visual.extra", r"1 unexpected \(visual\.extra\)"),
        (f"{GROUP}extra.bias", r"1 unexpected \(visual\.group\.extra\.bias\)"),
        ("clip.visual.transformer.layers3.0.ln_1.bias", r"1 unexpected \(visual\.transformer\.layers3"),
    ],
)
def test_an_unknown_tensor_is_named(released, name, message):
    clip, _ = build_empty_segclip()
    with pytest.raises(CheckpointError, match=message):
        load_strict(clip, split_checkpoint({**released, name: torch.empty(1)}, "some.bin").clip, "some.bin")


def test_a_missing_tensor_is_named(released):
    del released[f"{GROUP}k_ln.bias"]
    clip, _ = build_empty_segclip()
    with pytest.raises(CheckpointError, match=r"1 missing \(visual\.group\.key_norm\.bias\)"):
        load_strict(clip, split_checkpoint(released).clip, "some.bin")


def test_a_plain_clip_is_told(released):
    plain = {name: value for name, value in released.items() if not name.startswith(GROUP)}
    with pytest.raises(CheckpointError, match="it has no semantic group module"):
        split_checkpoint(plain)
