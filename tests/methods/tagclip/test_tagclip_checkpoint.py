"""Trained files of TagCLIP and ZegCLIP find their places, and what is no such file is told."""

import pytest
import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip import image_encoder
from ovseg_demo.methods.tagclip.checkpoint import ReleasedModel, join_checkpoint, split_checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.weights import reading
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import fixture

HEAD = "decode_head."
TRUSTY = f"{HEAD}disc_token"
CLASS_WEIGHTS = f"{HEAD}loss_decode.criterion.empty_weight"
LAST = ("linear1", "linear2", "norm2", "norm3", "multihead_attn.v", "multihead_attn.proj")
"""What nothing reads of the last layer: it makes nothing but masks."""

BOTH = pytest.mark.parametrize("model", ["tagclip", "zegclip"])


def published(model: str) -> dict[str, Tensor]:
    """A trained file's tensors, without their numbers."""
    names = fixture("tagclip_keys.json")
    return {name: torch.empty(shape, device="meta") for name, shape in (names["both"] | names[model]).items()}


def tokenless() -> dict[str, Tensor]:
    state = published("tagclip")
    del state[TRUSTY]
    return state


def loaded(released: ReleasedModel) -> None:
    """The decoder without its numbers, as it is loaded from "some.pth"."""
    with torch.device("meta"):
        decoder = Decoder(released.sizes)
    load_strict(decoder, released.decoder, "some.pth")


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def layers(model: str) -> str:
    return HEAD + {"tagclip": "decoder.layers.", "zegclip": "decoder_1.layers."}[model]


def unread(model: str) -> set[str]:
    names = [f"{layers(model)}2.{part}" for part in LAST]
    if model == "tagclip":
        names += [f"{layers(model)}{i}.norm1" for i in (1, 2)]
    else:
        names += [f"{layers(model)}{i}.{part}" for i in range(3) for part in ("norm1", "self_attn.out_proj")]
    weights = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    if model == "zegclip":
        weights |= {f"{layers(model)}{i}.self_attn.in_proj_{kind}" for i in range(3) for kind in ("weight", "bias")}
    return {CLASS_WEIGHTS, *weights}


@pytest.mark.parametrize(
    ("state", "count", "sizes"),
    [
        (published("tagclip"), 369, DecoderSizes()),
        (tokenless(), 368, DecoderSizes(trusty=False)),
        (published("zegclip"), 376, DecoderSizes(learner=False, trusty=False)),
    ],
    ids=["tagclip", "tokenless", "zegclip"],
)
def test_every_tensor_of_a_file_has_its_place(state, count, sizes):
    released = split_checkpoint({"meta": {"iter": 20_000}, "state_dict": state, "optimizer": {"state": {}}})
    assert (len(state), len(released.clip), released.sizes) == (count, 158 + 149, sizes)
    with torch.device("meta"):
        assert shapes(released.decoder) == shapes(Decoder(sizes).state_dict())
    loaded(released)


@pytest.mark.parametrize("prompts", [10, 100])
@BOTH
def test_the_clip_inside_is_that_of_open_clip(model, prompts, monkeypatch):
    monkeypatch.setattr(image_encoder, "load_clip_weights", lambda clip, state, _: (clip, state))
    state = published(model)
    for name, layers in (("prompt_embeddings", 1), ("deep_prompt_embeddings", 11)):
        state[f"backbone.{name}"] = torch.empty(layers, prompts, 768, device="meta")
    clip, given = image_encoder.build_prompted_clip(split_checkpoint(state).clip, "")
    assert shapes(given) == shapes(clip.state_dict())
    assert clip.visual.transformer.resblocks[0].attn.num_heads == 12
    assert clip.transformer.resblocks[0].attn.num_heads == 8


@pytest.mark.parametrize("classes", [15, 20, 156, 171])
@BOTH
def test_the_number_of_classes_in_training_does_not_matter(model, classes):
    state = published(model)
    state[CLASS_WEIGHTS] = torch.empty(classes + 1, device="meta")
    loaded(split_checkpoint(state))
    del state[CLASS_WEIGHTS]
    loaded(split_checkpoint(state))


@BOTH
def test_tensors_may_stand_in_several_places(model):
    state = published(model)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    wanted = split_checkpoint(state)
    for content in (state, {"state_dict": state}, {"model": state}, {"state_dict": parallel}):
        assert split_checkpoint(content) == wanted


@BOTH
def test_joining_undoes_splitting_but_for_what_nothing_reads(model):
    state = published(model)
    joined = join_checkpoint(split_checkpoint(state))
    assert state.keys() - joined.keys() == unread(model)
    assert all(joined[name] is state[name] for name in joined)
    again = split_checkpoint(joined)
    assert again == split_checkpoint(state)
    loaded(again)


def test_a_file_of_the_framework_is_read(tmp_path):
    """As mmcv writes it, with whatever training leaves beside the tensors."""
    state = {name: torch.zeros(()) for name in published("tagclip")}
    meta = {"seed": 0, "CLASSES": ("aeroplane",), "PALETTE": [[120, 120, 120]], "config": "model = {}", "hook_msgs": {}}
    torch.save(
        {"meta": meta, "state_dict": state, "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{}]}},
        tmp_path / "x.pth",
    )
    assert len(split_checkpoint(reading.read_weights(tmp_path / "x.pth")).clip) == 307


@BOTH
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("0.multihead_attn.q.weight", "layers.0.query.weight"),
        ("1.norm2.bias", "layers.1.attention_norm.bias"),
        ("1.linear1.bias", "layers.1.fc1.bias"),
        ("2.multihead_attn.k.weight", "masks.key.weight"),
    ],
)
def test_what_the_decoder_lacks_or_has_in_another_shape_is_named_in_one_line(model, theirs, ours):
    state = published(model)
    tensor = state.pop(layers(model) + theirs)
    with pytest.raises(CheckpointError, match=rf"^some\.pth does not fit Decoder: 1 missing \({ours}\)\.$"):
        loaded(split_checkpoint(state))
    state[layers(model) + theirs] = tensor[None]
    with pytest.raises(CheckpointError, match=rf"^some\.pth does not fit Decoder: 1 misshapen \({ours}\)\.$"):
        loaded(split_checkpoint(state))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("decoder.layers.0.self_attn.in_proj_bias", "learner.to_qkv.bias"),
        ("decoder.layers.0.norm1.weight", "learner.norm.weight"),
        ("relationship_discriptor.q_proj.bias", "descriptor.bias"),
    ],
)
def test_what_only_the_trusty_learner_has_is_needed(theirs, ours):
    state = published("tagclip")
    del state[HEAD + theirs]
    with pytest.raises(CheckpointError, match=rf": 1 missing \({ours}\)\.$"):
        loaded(split_checkpoint(state))


@pytest.mark.parametrize(
    "name", ["backbone.prompt_norm.bias", "backbone.transformer.resblocks.3.ln_1.weight", "text_encoder.ln_final.bias"]
)
@BOTH
def test_what_the_clip_lacks_is_named_in_one_line(model, name, monkeypatch):
    state = published(model)
    tensor = state.pop(name)
    ours = name.replace("backbone", "visual").removeprefix("text_encoder.").replace(".", r"\.")
    with pytest.raises(CheckpointError, match=rf"^some\.pth does not fit CLIP: 1 missing \({ours}\)\.$"):
        image_encoder.build_prompted_clip(split_checkpoint(state).clip, "some.pth")
    state[name] = tensor[:-1]
    with pytest.raises(CheckpointError, match=rf"^some\.pth does not fit CLIP: 1 misshapen \({ours}\)\.$"):
        image_encoder.build_prompted_clip(split_checkpoint(state).clip, "some.pth")
    state[name] = tensor
    state[f"{name}s"] = tensor
    with pytest.raises(CheckpointError, match=rf"^some\.pth does not fit CLIP: 1 unexpected \({ours}s\)\.$"):
        image_encoder.build_prompted_clip(split_checkpoint(state).clip, "some.pth")


@pytest.mark.parametrize(
    "name",
    [
        "visual.conv1.weight",
        "visual.positional_embedding",
        "visual.prompt_embeddings",
        "positional_embedding",
        "token_embedding.weight",
        "text_projection",
    ],
)
@pytest.mark.parametrize("value", [None, torch.zeros(())], ids=["missing", "misshapen"])
def test_what_tells_the_sizes_of_the_clip_is_needed(name, value):
    state = split_checkpoint(published("zegclip")).clip
    del state[name]
    if value is not None:
        state[name] = value
    with pytest.raises(CheckpointError, match=r"^some\.pth holds no CLIP with deep prompts: "):
        image_encoder.build_prompted_clip(state, "some.pth")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("tagclip", "decode_head.conv_seg.weight"),
        ("tagclip", "decode_head.decoder.layers.3.norm2.weight"),
        ("tagclip", "decode_head.decoder.layers.1.self_attn.in_proj_weight"),
        ("tagclip", "decode_head.q_proj.weight"),
        ("tagclip", "decode_head.decoder_1.layers.0.norm2.weight"),
        ("zegclip", "decode_head.decoder.layers.0.norm2.weight"),
        ("zegclip", "auxiliary_head.conv.weight"),
    ],
)
def test_a_tensor_that_none_of_them_has_is_named(model, name):
    with pytest.raises(CheckpointError, match=rf"^some\.pth is no TagCLIP and no ZegCLIP: it has {name}\.$"):
        split_checkpoint(published(model) | {name: torch.zeros(1)}, "some.pth")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"state_dict": "weights"},
        {"state_dict": {}},
        {"model": {}, "meta": {}},
        {"weight": 1.0},
        {"weight": torch.zeros(1)},
        {"state_dict": {"visual.conv1.weight": torch.zeros(1), "backbone.conv1.weight": torch.zeros(1)}},
        {"backbone.conv1.weight": torch.zeros(1)},
    ],
)
def test_other_files_are_told_apart(content):
    told = r"it has (visual\.conv1\.)?weight|nothing in it is named decode_head\.…"
    with pytest.raises(CheckpointError, match=rf"^Some\.pth (is no TagCLIP and no ZegCLIP: ({told})|holds no weights)"):
        split_checkpoint(content, "Some.pth")
