"""What is trained, how fast, from which weights, and what the file holds."""

import json
import pickle
from dataclasses import asdict, replace

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.clip.templates import VILD_TEMPLATES
from ovseg_demo.models.clip.weights import MASK_PROMPTS
from ovseg_demo.proposals.maskformer.checkpoint import split_checkpoint
from ovseg_demo.proposals.maskformer.model import build_maskformer
from ovseg_demo.weights import reading
from train.common.mask_losses import Segments, layer_losses, mask_count
from train.common.run_folder import RunFolder
from train.ovseg.maskformer import class_embeddings, join_checkpoints, trained_model
from train.ovseg.maskformer.initial_weights import initialise
from train.ovseg.maskformer.recipes import RECIPES, shortened, smoke
from train.ovseg.maskformer.training import MaskFormerTraining, class_logits, decays

TINY = {name: smoke(recipe) for name, recipe in RECIPES.items()}


def words(count: int, width: int = 16) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(count)), dim=1)


def training(backbone: str = "swinb") -> MaskFormerTraining:
    torch.manual_seed(0)
    return MaskFormerTraining(TINY[backbone].architecture.build(16), [words(3), words(5)])


def batch() -> dict:
    labels = torch.full((2, 64, 64), -1)
    labels[0, :32], labels[0, 32:], labels[1, :, 40:] = 0, 2, 4
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"images": images, "labels": labels, "sets": [0, 1]}


@pytest.mark.parametrize(
    ("backbone", "rate", "decay", "backbone_rate", "side", "frozen"),
    [("r101c", 2e-4, 1e-4, 0.1, 512, ("stem", "res2")), ("swinb", 6e-5, 0.01, 1.0, 640, ())],
)
def test_the_recipes_are_the_published_ones(backbone, rate, decay, backbone_rate, side, frozen):
    recipe = RECIPES[backbone]
    schedule = recipe.schedule
    assert (schedule.learning_rate, schedule.weight_decay, schedule.clip) == (rate, decay, 0.01)
    assert (schedule.steps, schedule.warmup, schedule.decay, schedule.averaging) == (120_000, 1500, "poly", 0)
    assert (recipe.batch, recipe.backbone_rate, recipe.views.side, recipe.frozen) == (32, backbone_rate, side, frozen)
    shortest = {"r101c": [800], "swinb": list(range(320, 1281, 64))}[backbone]
    assert list(recipe.views.shortest) == shortest
    assert (recipe.architecture.backbone_sizes, recipe.architecture.head_sizes) == ({}, {})


def test_shorter_runs_warm_up_for_a_tenth():
    recipe = shortened(RECIPES["r101c"], 200, 8)
    assert (recipe.schedule.steps, recipe.schedule.warmup, recipe.batch) == (200, 20, 8)
    assert shortened(RECIPES["r101c"], 100_000, None).schedule.warmup == 1500
    assert shortened(RECIPES["r101c"], None, None) == RECIPES["r101c"]


def test_losses_are_those_of_all_layers_against_each_images_words():
    net, given = training().eval(), batch()
    found = net(given)
    layers = net.model((given["images"] - net.mean) / net.std)
    segments = [Segments.of(labels) for labels in given["labels"]]
    none = F.normalize(net.non_object, dim=1)
    vocabularies = [torch.cat([words(3), none]), torch.cat([words(5), none])]
    expected = [
        layer_losses(
            [100 * F.normalize(own, dim=1) @ v.T for own, v in zip(layer.class_embeddings, vocabularies, strict=True)],
            layer.mask_logits,
            segments,
            mask_count(segments),
        )
        for layer in layers
    ]
    assert len(layers) == 3
    for name in ("classes", "masks", "dice"):
        torch.testing.assert_close(found[name], expected[-1][name])
    torch.testing.assert_close(found["earlier layers"], sum(sum(each.values()) for each in expected[:-1]))


@pytest.mark.parametrize("backbone", ["r101c", "swinb"])
def test_every_trained_part_gets_a_gradient(backbone):
    net = training(backbone)
    sum(net(batch()).values()).backward()
    assert [name for name, value in net.named_parameters() if value.grad is None] == []
    assert net.non_object.grad.abs().sum() > 0


def test_losses_are_computed_in_full_precision():
    net = training().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = net(batch())
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_norms_embeddings_and_tables_do_not_decay():
    net = training()
    decaying = decays(net)
    named = dict(net.named_parameters())
    kept = {name for name, value in named.items() if not decaying(name, value)}
    wanted = {name for name in named if "relative_position_bias_table" in name or "query_embed" in name}
    norms = (nn.LayerNorm, nn.GroupNorm)
    wanted |= {
        f"{part}.{name}" for part, m in net.named_modules() if isinstance(m, norms) for name in ("weight", "bias")
    }
    assert kept == wanted
    assert any("norm" in name for name in kept)
    assert any("relative_position_bias_table" in name for name in kept)
    assert not {"non_object", "model.sem_seg_head.predictor.input_proj.bias"} & kept


def test_no_object_begins_as_long_as_a_text():
    assert 0.5 < MaskFormerTraining(TINY["swinb"].architecture.build(384), [words(2, 384)]).non_object.norm() < 1.5


def test_texts_are_neither_trained_nor_stored():
    assert not [name for name in training().state_dict() if "texts" in name]


def test_a_file_holds_the_model_under_published_names(tmp_path):
    net, recipe = training("r101c"), TINY["r101c"]
    trained_model.save_maskformer(RunFolder(tmp_path, {}), net, recipe)
    loaded = trained_model.load_trained_maskformer(tmp_path / trained_model.FILE)
    assert (loaded.clip, loaded.shortest, loaded.longest) == ("mini", *recipe.shown)
    assert not loaded.model.training
    torch.testing.assert_close(loaded.model.state_dict(), net.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(loaded.non_object, net.non_object.detach(), rtol=0, atol=0)
    with torch.device("meta"):
        published = set(build_maskformer("r101c", 512).state_dict()) | {trained_model.NON_OBJECT}
    torch.manual_seed(1)
    full = replace(RECIPES["r101c"].architecture, backbone_sizes={"width": 8})
    trained_model.save_maskformer(
        RunFolder(tmp_path / "full", {}),
        MaskFormerTraining(full.build(16), [words(2)]),
        replace(recipe, architecture=full),
    )
    assert set(reading.read_weights(tmp_path / "full" / trained_model.FILE)) == published


def test_other_files_are_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"^other\.safetensors was not written by train\.ovseg\.maskformer\.$"):
        trained_model.load_trained_maskformer(tmp_path / "other.safetensors")


def test_a_trained_model_is_begun_from(tmp_path):
    net = training()
    trained_model.save_maskformer(RunFolder(tmp_path, {}), net, TINY["swinb"])
    other = TINY["swinb"].architecture.build(16)
    initialise(other, tmp_path / trained_model.FILE)
    torch.testing.assert_close(other.state_dict(), net.model.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match=r"^maskformer\.safetensors does not fit MaskFormer: "):
        initialise(TINY["r101c"].architecture.build(16), tmp_path / trained_model.FILE)


def test_a_published_backbone_is_begun_from(tmp_path):
    """Detectron2's are pickled arrays, beside which the classifier's are; the head keeps its fresh weights."""
    model = TINY["r101c"].architecture.build(16)
    head = {name: value.clone() for name, value in model.sem_seg_head.state_dict().items()}
    arrays = {name: np.full(value.shape, 0.5, np.float32) for name, value in model.backbone.state_dict().items()}
    content = {
        "model": arrays | {"stem.fc.weight": np.zeros((2, 2))},
        "__author__": "someone",
        "matching_heuristics": True,
    }
    path = tmp_path / "R-103.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    initialise(model, path)
    assert all((value == 0.5).all() for value in model.backbone.state_dict().values())
    torch.testing.assert_close(model.sem_seg_head.state_dict(), head, rtol=0, atol=0)
    del arrays["res3.0.conv1.weight"]
    path.write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(CheckpointError, match=r"R-103\.pkl does not fit ResNet: 1 missing \(res3\.0\.conv1\.weight\)"):
        initialise(model, path)


class Harmful:
    def __reduce__(self) -> tuple:
        return print, ("harm",)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"model": Harmful()}), pickle.dumps([1])])
def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path, capsys, content):
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^weights\.pkl cannot be read as weights: "):
        initialise(TINY["r101c"].architecture.build(16), path)
    assert capsys.readouterr().out == ""


def test_the_mini_models_texts_are_unit_vectors_of_plain_words():
    found = class_embeddings.create_class_embedder("mini", torch.device("cpu"))(["a cat", "cat|kitten"])
    assert found.shape == (2, 384)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_a_clips_texts_are_vilds(monkeypatch):
    made = []

    class Clip:
        def embed_texts(self, names) -> torch.Tensor:
            return torch.ones(len(names), 4)

    monkeypatch.setattr(
        class_embeddings.factory, "create_clip", lambda *named, templates: made.append((named, templates)) or Clip()
    )
    assert class_embeddings.create_class_embedder("some.pt", torch.device("cpu"))(["cat", "dog"]).shape == (2, 4)
    assert made == [(("some.pt", torch.device("cpu")), VILD_TEMPLATES)]


def test_class_logits_are_scaled_cosines():
    found = class_logits(torch.tensor([[3.0, 0], [1, 1]]), torch.tensor([[1.0, 0], [0, 1]]))
    torch.testing.assert_close(found, torch.tensor([[100.0, 0], [50 * 2**0.5, 50 * 2**0.5]]))


def released(width: int) -> dict[str, torch.Tensor]:
    """Shapes of a full-sized MaskFormer's tensors, without their memory."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build_maskformer("r101c", width).state_dict().items()}
    return {
        name: torch.zeros(()).expand(shape) for name, shape in (shapes | {trained_model.NON_OBJECT: (1, width)}).items()
    }


def published_clip(architecture: str) -> dict[str, torch.Tensor]:
    """Tensors of a CLIP with mask prompts, without their memory."""
    with torch.device("meta"):
        config = open_clip.get_model_config(architecture)
        shapes = {name: value.shape for name, value in open_clip.CLIP(**config).state_dict().items()}
    tokens, width = shapes["visual.positional_embedding"]
    shapes[MASK_PROMPTS] = (3, tokens - 1, width)
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def test_maskformer_and_clip_join_to_a_file_like_the_released():
    clip = published_clip("ViT-B-16-quickgelu")
    parts = split_checkpoint(join_checkpoints.join_checkpoints(released(512), clip))
    assert (parts.backbone, set(parts.clip)) == ("r101c", set(clip))
    assert parts.non_object.shape == (1, 512)
    with pytest.raises(CheckpointError, match=r"^This CLIP has no mask prompts"):
        join_checkpoints.join_checkpoints(released(512), {"visual.proj": clip["visual.proj"]})
    with pytest.raises(CheckpointError, match=r"^What was joined is no released OVSeg model: "):
        join_checkpoints.join_checkpoints(
            training("r101c").model.state_dict() | {trained_model.NON_OBJECT: torch.zeros(1, 512)}, clip
        )


def test_a_clip_that_is_not_the_released_one_does_not_join():
    fitting = published_clip("ViT-B-16-quickgelu")
    fewer = {name: value for name, value in fitting.items() if name != "visual.proj"}
    told = r"^This CLIP is not what OVSeg has beside r101c: "
    for clip, fault in (
        (published_clip("ViT-L-14-quickgelu"), r".*misshapen \("),
        (fewer, r"1 missing \(visual\.proj\)\.$"),
        (fitting | {"extra": torch.zeros(1)}, r"1 unexpected \(extra\)\.$"),
        (fitting | {MASK_PROMPTS: torch.zeros(1, 1, 768)}, r"1 misshapen \(visual\.mask_embedding\)\.$"),
    ):
        with pytest.raises(CheckpointError, match=told + fault):
            join_checkpoints.join_checkpoints(released(512), clip)


def test_recipes_can_be_written_down():
    for recipe in (*RECIPES.values(), *TINY.values()):
        assert json.dumps(asdict(recipe))
