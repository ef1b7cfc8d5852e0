"""What of SED is trained, how fast, through which paths, and what the file holds."""

import json
from dataclasses import asdict, replace

import open_clip
import pytest
import torch
from torch import nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.sed import checkpoint
from ovseg_demo.methods.sed.decoder import Decoder, SpatialFusion, cost_map
from ovseg_demo.models.clip.convnext import hierarchical_features
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES
from ovseg_demo.models.clip.text import embed_words
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from ovseg_demo.weights import catalogue, reading
from train.common.run_folder import RunFolder
from train.common.schedule import parameter_groups
from train.sed import initial_model, saving
from train.sed.losses import sed_losses
from train.sed.recipes import RECIPES, smoke
from train.sed.training import TOWER, SEDTraining, decays

TINY = smoke(RECIPES["b"])
WORDS = (["cat", "dog", "sky-other"], ["road", "tree"])


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return initial_model.tiny_clip(0)


def training(clip: open_clip.CLIP, ignore: str = "zeros") -> SEDTraining:
    clip.zero_grad()
    torch.manual_seed(0)
    texts = [embed_words(clip, words, IMAGENET_TEMPLATES) for words in WORDS]
    return SEDTraining(clip.visual, Decoder(TINY.sizes), texts, TINY.pooling, ignore)


def batch(number: int = 0) -> dict:
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((2, 64, 64), -1)
    labels[0, :32], labels[1, :, 40:] = 0, 1
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": labels, "sets": [number] * 2}


@pytest.mark.parametrize(
    ("size", "architecture", "skips"),
    [("b", "convnext_base_w_320", (512, 256, 128)), ("l", "convnext_large_d_320", (768, 384, 192))],
)
def test_the_recipes_are_the_published_ones(size, architecture, skips):
    recipe = RECIPES[size]
    schedule, views = recipe.schedule, recipe.views
    assert (recipe.architecture, recipe.sizes.skips, recipe.ignore) == (architecture, skips, "zeros")
    assert recipe.clip in catalogue.entries()
    assert (schedule.learning_rate, schedule.weight_decay, schedule.clip) == (2e-4, 1e-4, 0.01)
    assert (schedule.steps, schedule.warmup, schedule.decay, schedule.averaging) == (80_000, 0, "cosine", 0)
    assert (schedule.betas, schedule.epsilon) == ((0.9, 0.999), 1e-8)
    assert (recipe.batch, recipe.clip_rate, recipe.pooling) == (4, 0.01, 2)
    assert (views.side, views.shortest, views.longest) == (768, (768,), 2666)


def test_the_rate_begins_at_its_highest_and_ends_at_nothing():
    schedule = RECIPES["b"].schedule
    assert schedule.factor(0) == 1
    assert schedule.factor(40_000) == pytest.approx(0.5)
    assert schedule.factor(20_000) == pytest.approx(0.8536, abs=1e-4)
    assert 0 < schedule.factor(79_999) < 1e-9
    assert schedule.factor(80_000) == 0


@pytest.mark.parametrize(("number", "ignore"), [(0, "zeros"), (1, "masked")])
def test_losses_are_those_of_the_batchs_own_words(clip, number, ignore):
    net, given = training(clip, ignore).eval(), batch(number)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    found = hierarchical_features(clip.visual, (given["images"] - mean) / std)
    logits = net.decoder(
        cost_map(found.dense, embed_words(clip, WORDS[number], IMAGENET_TEMPLATES)), found.skips, pooling=2
    )
    assert logits[0].shape[1] == len(WORDS[number])
    expected = sed_losses(logits, given["labels"], ignore)
    for name, value in net(given).items():
        torch.testing.assert_close(value, expected[name])


def test_everything_but_the_text_tower_learns(clip):
    net = training(clip).train()
    sum(net(batch()).values()).backward()
    idle = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []
    names = {id(value) for value in net.parameters()}
    assert not [name for name, value in clip.named_parameters() if (id(value) in names) != name.startswith("visual.")]


def test_the_tower_learns_through_the_cost_map_alone(clip, monkeypatch):
    net = training(clip).train()
    plain = hierarchical_features(clip.visual, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert all(skip.requires_grad for skip in plain.skips), "else nothing is detached"
    taken = []
    forward = net.decoder.forward
    monkeypatch.setattr(net.decoder, "forward", lambda *given: taken.append(given) or forward(*given))
    net(batch())
    [(cost, skips, pooling)] = taken
    assert (cost.requires_grad, pooling) == (True, 2)
    assert not [skip for skip in skips if skip.requires_grad]


def test_auxiliary_losses_reach_only_their_heads(clip):
    net = training(clip).train()
    found = net(batch())
    sum(value for name, value in found.items() if name != "result").backward()
    reached = {name for name, value in net.named_parameters() if value.grad is not None}
    assert reached == {f"decoder.heads.{head}.{part}" for head in range(3) for part in ("weight", "bias")}


def test_rates_and_decays_are_the_published_ones(clip):
    net = training(clip)
    names = {id(value): name for name, value in net.named_parameters()}
    groups = parameter_groups(net, TINY.schedule, {TOWER: TINY.clip_rate}, decays(net))
    found = {names[id(v)]: (group["lr"], group["weight_decay"]) for group in groups for v in group["params"]}
    assert found.keys() == set(names.values())
    for name, (rate, _) in found.items():
        assert rate == pytest.approx(2e-6 if name.startswith("visual.") else 2e-4)
    norms = {part for part, module in net.named_modules() if isinstance(module, (nn.LayerNorm, nn.GroupNorm))}
    fused = {f"{part}.norm" for part, module in net.named_modules() if isinstance(module, SpatialFusion)}
    assert len(fused) == 3
    assert fused < norms
    still = {name for name, (_, decay) in found.items() if decay == 0}
    assert still == {f"{part}.{name}" for part in norms - fused for name in ("weight", "bias")}
    assert found["decoder.stages.0.spatial.layer_scale"][1] == found["decoder.embed.bias"][1] == 1e-4
    assert found["visual.trunk.stages.0.blocks.0.gamma"][1] == 1e-4


def test_cosines_are_computed_in_full_precision(clip, monkeypatch):
    net = training(clip).eval()
    taken = []
    forward = net.decoder.forward
    monkeypatch.setattr(net.decoder, "forward", lambda *given: taken.append(given[0]) or forward(*given))
    with torch.autocast("cpu", torch.bfloat16):
        found = net(batch())
    assert taken[0].dtype == torch.float32
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_the_loss_falls(clip):
    net, given = training(initial_model.tiny_clip(0), "masked").train(), batch()
    schedule = replace(TINY.schedule, learning_rate=2e-3)
    optimizer = torch.optim.AdamW(parameter_groups(net, schedule, {TOWER: TINY.clip_rate}, decays(net)))
    found = []
    for _ in range(30):
        loss = net(given)["result"]
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found[-1] < 0.8 * found[0]


def test_the_file_is_taken_apart_again(clip, tmp_path):
    net = training(clip)
    saving.save_sed(RunFolder(tmp_path, {}), clip, net.decoder)
    parts = checkpoint.split_checkpoint(reading.read_weights(tmp_path / saving.FILE))
    for state, module in ((parts.clip, clip), (parts.decoder, net.decoder)):
        wanted = module.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("size", "tensors", "elements"), [("b", 608, 180_761_741), ("l", 658, 353_245_773)])
def test_the_file_has_the_tensors_of_a_released_one(size, tensors, elements):
    recipe = RECIPES[size]
    with torch.device("meta"):
        clip = open_clip.CLIP(**open_clip.get_model_config(recipe.architecture))
        decoder = Decoder(recipe.sizes)
    state = checkpoint.join_checkpoint(checkpoint.ReleasedModel(clip.state_dict(), decoder.state_dict()))
    assert (len(state), sum(value.numel() for value in state.values())) == (tensors, elements)


def test_weights_of_another_clip_are_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save(initial_model.tiny_clip(0).state_dict(), path)
    with pytest.raises(CheckpointError, match=rf"^{path} does not fit CLIP: \d+ missing "):
        initial_model.load_initial_clip("convnext_base_w_320", str(path))


def test_recipes_can_be_written_down():
    for recipe in (*RECIPES.values(), TINY):
        assert json.dumps(asdict(recipe))
