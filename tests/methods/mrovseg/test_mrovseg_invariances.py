"""What must hold of MROVSeg whatever its weights are, and what must make a difference."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ovseg_demo.methods.mrovseg.fusion import MultiResolutionFusion
from ovseg_demo.methods.mrovseg.model import MROVSeg, Prediction
from ovseg_demo.methods.mrovseg.slices import Slicing, resize_map
from tests.helpers import tiny_mrovseg
from tests.helpers.oracle import drawn

SIZE = (32, 48)
PATCH = tiny_mrovseg.PATCH


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model() -> MROVSeg:
    return tiny_mrovseg.build()


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return drawn("photos", (2, 3, *SIZE))


def assert_equal(found: Prediction, expected: Prediction) -> None:
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.embeddings, expected.embeddings, atol=1e-5, rtol=1e-5)


def let_convolution_do_nothing(fusion: MultiResolutionFusion) -> None:
    width = len(fusion.pw.bias)
    fusion.dw.weight.zero_()[:, 0, 1, 1] = 1
    fusion.dw.bias.zero_()
    fusion.pw.weight.copy_(torch.eye(width))
    fusion.pw.bias.zero_()


@pytest.mark.parametrize("trusted", ["high", "low"])
def test_a_fused_map_is_the_map_of_the_resolution_that_is_trusted(trusted):
    """With an identity convolution: a scale attention of 1 leaves the map of the slices, and 0 the other, enlarged."""
    fusion = MultiResolutionFusion(6, 6, norm="none")
    let_convolution_do_nothing(fusion)
    fusion.att[3].weight.zero_()
    fusion.att[3].bias.fill_(200.0 if trusted == "high" else -200.0)
    slicing = Slicing.of((32, 48), PATCH)
    high = slicing.tile([drawn(f"slice {number}", (2, 2, 3, 6)) for number in range(4)])
    low = drawn("low", (2, 2, 3, 6))
    fused, attention = fusion(high, low)
    assert attention.unique().tolist() == [float(trusted == "high")]
    assert torch.equal(fused, high if trusted == "high" else resize_map(low, (4, 6)))


def test_fusion_starts_between_both_maps():
    """Half of either, whatever the maps are: the last bias is 0, and so are the means of what it is added to."""
    fusion = MultiResolutionFusion(64, 64)
    assert fusion.att[3].bias.count_nonzero() == 0
    _, attention = fusion(drawn("high", (1, 4, 6, 64)), drawn("low", (1, 2, 3, 64)))
    assert abs(attention.mean() - 0.5) < 0.05


def test_convolution_crosses_the_borders_of_slices():
    """One place of a slice changes what is beside it, in three other slices too."""
    fusion = MultiResolutionFusion(6, 6, norm="none")
    maps = [torch.zeros(1, 2, 3, 6) for _ in range(4)]
    low = torch.zeros(1, 2, 3, 6)
    before, _ = fusion(Slicing.of((32, 48), PATCH).tile(maps), low)
    maps[0][0, 1, 2] = 1
    after, _ = fusion(Slicing.of((32, 48), PATCH).tile(maps), low)
    changed = (after != before).any(3)[0]
    assert changed.nonzero().tolist() == [[r, c] for r in range(4) for c in range(6) if 0 <= r <= 2 and 1 <= c <= 3]


def test_slices_in_another_order_are_another_photo(model, photos):
    """Without being put together in their order, slices lie elsewhere: masks and embeddings are others."""
    found = model(photos)
    features = model.features(photos)
    slicing = Slicing.of(SIZE, PATCH)
    swapped = {}
    for layer, whole in features.high.items():
        slices = slicing.cut(whole.permute(0, 3, 1, 2).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3))
        maps = [each[..., ::PATCH, ::PATCH].permute(0, 2, 3, 1) for each in slices]
        assert torch.equal(slicing.tile(maps), whole)
        swapped[layer] = slicing.tile([maps[1], maps[0], maps[2], maps[3]])
    other = model.decode(replace(features, high=swapped))
    assert (other.masks - found.masks).abs().max() > 0.1
    assert (other.embeddings - found.embeddings).abs().max() > 0.001


def without_masks(**changed: bool) -> MROVSeg:
    """A model whose attention masks are zero everywhere."""
    model = tiny_mrovseg.build(**changed)
    for affine in (model.bias_local, model.bias_global):
        affine.weight.zero_()
        affine.bias.zero_()
    return model


def test_attention_masks_of_zero_are_plain_cross_attention(photos):
    """Of CLIP's own blocks, as torch computes it: class tokens attend to the patches of both resolutions."""
    model = without_masks()
    features = model.features(photos)
    tokens = features.class_token[:, None] + model.prop_pos
    for layer in range(2, 5):
        block = model.clip_visual.blocks[layer]
        patches = torch.cat([features.low[layer].flatten(1, 2), features.high[layer].flatten(1, 2)], 1)
        keys = block.ln_1(patches)
        tokens = tokens + block.attn(block.ln_1(tokens), keys, keys)[0]
        tokens = tokens + block.mlp(block.ln_2(tokens))
    expected = torch.nn.functional.normalize(model.clip_visual.project(tokens), dim=2)
    torch.testing.assert_close(model.decode(features).embeddings, expected, atol=1e-5, rtol=1e-5)


def test_a_summand_of_all_attention_masks_changes_nothing_and_of_one_resolution_much(photos):
    model = tiny_mrovseg.build()
    expected = model(photos)
    model.bias_local.bias += 3
    other = model(photos)
    assert (other.embeddings - expected.embeddings).abs().max() > 0.01
    torch.testing.assert_close(other.masks, expected.masks, atol=0, rtol=0)
    model.bias_global.bias += 3
    assert_equal(model(photos), expected)


def test_a_photo_of_one_window_is_read_as_the_global_view(photos):
    """One slice that is the photo: both resolutions are equal, and so is the model that reads the global view alone."""
    one_window = tiny_mrovseg.build(slice_ratio=1.0, fusion_norm="none")
    for fusion in one_window.mrf.values():
        let_convolution_do_nothing(fusion)
    for name in ("mlp", "bias"):
        getattr(one_window, f"{name}_local").load_state_dict(getattr(one_window, f"{name}_global").state_dict())
    alone = tiny_mrovseg.build(slice_ratio=1.0, single_resolution=True)
    own = one_window.state_dict()
    alone.load_state_dict({name: own[name] for name in alone.state_dict()})
    features, of_alone = one_window.features(photos), alone.features(photos)
    for layer, low in features.low.items():
        torch.testing.assert_close(features.high[layer], low, atol=1e-6, rtol=0)
        torch.testing.assert_close(of_alone.low[layer], low, atol=1e-6, rtol=0)
    assert_equal(one_window.decode(features), alone.decode(of_alone))


def test_queries_in_another_order_give_answers_in_that_order(model, photos):
    order = [3, 1, 4, 0, 2]
    expected = model(photos)
    other = tiny_mrovseg.build()
    for parameter in (other.adapter.query_embed, other.adapter.query_pos, other.prop_pos):
        parameter.copy_(parameter[:, order])
    found = other(photos)
    assert_equal(found, Prediction(expected.masks[:, order], expected.embeddings[:, order], expected.scale_attention))


def test_a_factor_of_the_void_embedding_changes_nothing(model):
    embeddings = torch.nn.functional.normalize(drawn("embeddings", (2, 5, 12)), dim=2)
    texts = torch.nn.functional.normalize(drawn("texts", (3, 12)), dim=1)
    expected = model.class_logits(embeddings, texts)
    other = tiny_mrovseg.build()
    other.bg_embed *= 7
    torch.testing.assert_close(other.class_logits(embeddings, texts), expected)
    assert expected.abs().max() <= model.settings.logit_scale
