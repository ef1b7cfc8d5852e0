import json

import pytest
import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals import maskformer
from ovseg_demo.proposals.maskformer import checkpoint
from ovseg_demo.proposals.maskformer.checkpoint import load_backbone, split_checkpoint
from ovseg_demo.proposals.maskformer.model import build_maskformer
from tests.helpers.maskformer_models import IMAGE, drawn, small
from tests.helpers.paths import FIXTURES

FILES = {"r101c": "ovseg_r101c_vitb16_keys.json", "swinb": "ovseg_swinb_vitl14_keys.json"}
BOTH = pytest.mark.parametrize("backbone", ["r101c", "swinb"])
NON_OBJECT = "clip_adapter.non_object_embedding"


def published(backbone: str) -> dict[str, Tensor]:
    """A released file's tensors, without their numbers."""
    tensors = json.loads((FIXTURES / FILES[backbone]).read_text())["tensors"]
    return {name: torch.empty(shape, device="meta") for name, shape in tensors.items()}


@pytest.mark.parametrize(
    ("backbone", "count", "maskformer_count", "clip_count", "text_width"),
    [("r101c", 983, 676, 303, 512), ("swinb", 954, 503, 447, 768)],
)
def test_every_tensor_of_a_released_file_has_its_place(backbone, count, maskformer_count, clip_count, text_width):
    state = published(backbone)
    released = split_checkpoint({"model": state, "iteration": 119_999})
    assert released.backbone == backbone
    assert len(state) == count == maskformer_count + clip_count + 4
    assert (len(released.maskformer), len(released.clip)) == (maskformer_count, clip_count)
    assert released.non_object.shape == (1, text_width)
    with torch.device("meta"):
        own = build_maskformer(backbone, text_width).state_dict()
    assert {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in released.maskformer.items()}
    assert split_checkpoint(state).maskformer.keys() == released.maskformer.keys()


def test_the_clip_inside_has_the_names_of_openai_and_its_mask_prompts():
    stock = json.loads((FIXTURES / "clip_vitb16_keys.json").read_text())["tensors"]
    clip = split_checkpoint(published("r101c")).clip
    assert {n: list(t.shape) for n, t in clip.items()} == stock | {"visual.mask_embedding": [3, 196, 768]}


@BOTH
@pytest.mark.parametrize(
    "name",
    [
        "sem_seg_head.predictor.query_embed.weight",
        "sem_seg_head.pixel_decoder.mask_features.bias",
        "criterion.empty_weight",
        "clip_adapter.pixel_mean",
    ],
)
def test_missing_and_misshapen_tensors_are_named(backbone, name):
    state = published(backbone)
    tensor = state.pop(name)
    with pytest.raises(CheckpointError, match=rf"^some\.pth .*: 1 missing \({name}\)\.$"):
        split_checkpoint(state, "some.pth")
    state[name] = tensor[..., None]
    with pytest.raises(CheckpointError, match=rf"1 misshapen \({name}\)"):
        split_checkpoint(state)


@BOTH
def test_extra_tensors_are_named(backbone):
    with pytest.raises(CheckpointError, match=r"1 unexpected \(backbone\.fc\.weight\)"):
        split_checkpoint(published(backbone) | {"backbone.fc.weight": torch.zeros(1)})


@pytest.mark.parametrize("content", [{}, {"model": "weights"}, {"weight": 1.0}, {"weight": torch.zeros(1)}])
def test_other_files_are_told_apart(content):
    with pytest.raises(CheckpointError, match=r"^This file"):
        split_checkpoint(content)


@pytest.mark.parametrize("lacking", [NON_OBJECT, "clip_adapter.clip_model.visual.mask_embedding"])
def test_a_file_without_what_makes_it_ovseg_is_refused(lacking):
    state = published("swinb")
    del state[lacking]
    with pytest.raises(CheckpointError, match=lacking):
        split_checkpoint(state)


@BOTH
def test_loading_gives_the_published_function(backbone, monkeypatch):
    model, image = small(backbone), drawn("image", IMAGE)
    monkeypatch.setattr(maskformer.checkpoint, "build_maskformer", lambda name, width: small_unlike(name, width))
    released = checkpoint.ReleasedModel(backbone, model.state_dict(), {}, torch.zeros(1, 12))
    loaded = checkpoint.load_maskformer(released)
    assert not loaded.training
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image)[-1].mask_logits, model(image)[-1].mask_logits, atol=1e-4, rtol=0)


def small_unlike(backbone: str, text_width: int):
    assert text_width == 12
    model = small(backbone)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    return model


def imagenet(backbone: str) -> dict[str, Tensor]:
    """A published backbone of the small size: the tensors that are taken, and those that are not."""
    state = {f"{n}": torch.full_like(t, 2) for n, t in small(backbone).backbone.state_dict().items()}
    if backbone == "r101c":
        return state | {"stem.fc.weight": torch.ones(3), "stem.conv1.norm.num_batches_tracked": torch.tensor(1)}
    state = {n: t for n, t in state.items() if not n.startswith(("norm0.", "norm1.", "norm2.", "norm3."))}
    names = ("norm.weight", "norm.bias", "head.weight", "head.bias", "layers.0.blocks.1.attn_mask")
    return state | dict.fromkeys(names, torch.ones(1))


@BOTH
def test_a_backbone_begins_with_its_published_weights(backbone):
    model = small(backbone)
    head = {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("backbone.")}
    norms = {n: t.clone() for n, t in model.backbone.state_dict().items() if n.startswith("norm")}
    load_backbone(model, {"model": imagenet(backbone)})
    after = model.backbone.state_dict()
    assert all(torch.equal(after[n], t) for n, t in norms.items())
    assert all((t == 2).all() for n, t in after.items() if n not in norms)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in head.items())


@BOTH
def test_a_backbone_that_does_not_fit_is_refused_and_named(backbone):
    state, model = imagenet(backbone), small(backbone)
    name = next(iter(state))
    with pytest.raises(CheckpointError, match=r"1 unexpected \(extra\)"):
        load_backbone(model, state | {"extra": torch.ones(1)})
    with pytest.raises(CheckpointError, match=rf"1 misshapen \({name}\)"):
        load_backbone(model, state | {name: torch.ones(1)})
    del state[name]
    with pytest.raises(CheckpointError, match=rf"1 missing \({name}\)"):
        load_backbone(model, state)
