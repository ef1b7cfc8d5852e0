"""What is trained of MROVSeg, against which losses, without which parts, and what the file holds."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.checkpoint import check_clip, load_trained, read_settings
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise
from ovseg_demo.weights import reading
from train.common.loss_terms import LossTerms
from train.common.mask_losses import Segments, layer_losses, mask_count
from train.common.run_folder import RunFolder
from train.mrovseg import recipes
from train.mrovseg.initial_model import tiny_model
from train.mrovseg.recipes import ABLATIONS, RECIPES
from train.mrovseg.saving import FILE, save_mrovseg
from train.mrovseg.training import MROVSegTraining, decays

TINY = recipes.smoke(RECIPES["b"])


def words(count: int) -> Tensor:
    return F.normalize(torch.randn(count, 32, generator=torch.Generator().manual_seed(count)), dim=1)


def training(*without: str, terms: LossTerms = TINY.terms) -> MROVSegTraining:
    _, model = tiny_model(recipes.without(TINY, list(without)).settings, 0)
    return MROVSegTraining(model, [words(3), words(5)], terms)


def batch() -> dict:
    labels = torch.full((2, 64, 64), -1)
    labels[0, :32], labels[0, 32:], labels[1, :, 40:] = 0, 2, 4
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"images": images, "labels": labels, "sets": [0, 1]}


def test_losses_are_those_of_the_last_and_the_fifth_block_against_each_images_words():
    terms = replace(TINY.terms, sampling=None)  # nothing random
    net, given = training(terms=terms), batch()
    found = net(given)
    prediction = net.model(normalise(given["images"], CLIP_MEAN, CLIP_STD))
    [fifth] = prediction.auxiliary
    segments = [Segments.of(labels) for labels in given["labels"]]
    void = F.normalize(net.model.bg_embed, dim=1)
    vocabularies = [torch.cat([words(3), void]), torch.cat([words(5), void])]
    last, earlier = (
        layer_losses(
            [100 * own @ vocabulary.T for own, vocabulary in zip(block.embeddings, vocabularies, strict=True)],
            block.masks,
            segments,
            mask_count(segments),
            terms,
        )
        for block in (prediction, fifth)
    )
    assert list(found) == ["classes", "masks", "dice", "earlier blocks"]
    for name, value in last.items():
        torch.testing.assert_close(found[name], value)
    torch.testing.assert_close(found["earlier blocks"], sum(earlier.values()))


@pytest.mark.parametrize("without", [(), *((part,) for part in ABLATIONS), ("adapter", "fusion", "masked-attention")])
def test_every_trained_part_gets_a_gradient_and_clip_gets_none(without):
    net = training(*without)
    sum(net(batch()).values()).backward()
    with_gradient = {name for name, value in net.named_parameters() if value.grad is not None}
    assert with_gradient == {name for name, _ in net.named_parameters() if ".clip_visual." not in name}


def test_each_part_can_be_left_out():
    settings = {part: recipes.without(RECIPES["b"], [part]).settings for part in ABLATIONS}
    whole = RECIPES["b"].settings
    assert settings == {
        "adapter": replace(whole, adapter=False),
        "fusion": replace(whole, fusion=False),
        "masked-attention": replace(whole, masked_attention=False),
        "slices": replace(whole, single_resolution=True),
    }


def test_losses_are_computed_in_full_precision():
    net = training()
    with torch.autocast("cpu", torch.bfloat16):
        found = net(batch())
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_norms_queries_and_positions_do_not_decay():
    net = training()
    decaying = decays(net)
    kept = {name for name, value in net.named_parameters() if value.requires_grad and not decaying(name, value)}
    norms = {
        f"{part}.{name}"
        for part, m in net.named_modules()
        if isinstance(m, nn.LayerNorm)
        for name in ("weight", "bias")
    }
    embeddings = {
        f"model.{name}" for name in ("prop_pos", *(f"adapter.{n}" for n in ("query_embed", "query_pos", "pos_embed")))
    }
    assert kept == embeddings | {name for name in norms if ".clip_visual." not in name}
    assert decaying("model.bg_embed", net.model.bg_embed)


def test_the_file_has_the_trained_half_and_its_settings(tmp_path):
    settings = recipes.without(TINY, ["fusion"]).settings
    clip, model = tiny_model(settings, 0)
    save_mrovseg(RunFolder(tmp_path, {}), clip, model)
    path = tmp_path / FILE
    assert read_settings(path) == settings
    check_clip(path, clip.state_dict(), "the CLIP")
    state = reading.read_weights(path)
    assert not any(name.startswith("clip_visual.") for name in state)
    _, other = tiny_model(settings, 1)
    other.clip_visual.load_state_dict(model.clip_visual.state_dict())
    load_trained(other, state, FILE)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other.eval()(pixels).masks, model.eval()(pixels).masks)
