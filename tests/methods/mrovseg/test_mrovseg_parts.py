"""Slices, fusion, mask decoder and recognition one by one against the slow derivation, at sizes of their own."""

from functools import partial
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from ovseg_demo.methods.mrovseg.fusion import MultiResolutionFusion
from ovseg_demo.methods.mrovseg.mask_decoder import MLP, Doubling, attention_biases, max_pool
from ovseg_demo.methods.mrovseg.recognition import recognise
from ovseg_demo.methods.mrovseg.slices import Slicing, pad_to_slices
from tests.helpers import mrovseg_naive as naive
from tests.helpers import tiny_mrovseg
from tests.helpers.mrovseg_naive import State
from tests.helpers.oracle import drawn, weights

RATIOS = pytest.mark.parametrize("ratio", [0.5, 0.6, 0.75, 1.0])
WIDTH = 6
Module = TypeVar("Module", bound=nn.Module)

close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


def filled(module: Module, prefix: str) -> tuple[Module, State]:
    """The module with weights that follow from its names behind a prefix, and these weights."""
    state = weights({prefix + name: tuple(each.shape) for name, each in module.state_dict().items()})
    module.load_state_dict({name: state[prefix + name] for name in module.state_dict()})
    return module.eval().requires_grad_(False), state


def ours(maps: Tensor) -> Tensor:
    """A map (D, h, w) as a batch of one of ours, (1, h, w, D)."""
    return maps.permute(1, 2, 0)[None]


def theirs(maps: Tensor) -> Tensor:
    return maps[0].permute(2, 0, 1)


@RATIOS
@pytest.mark.parametrize("size", [(16, 16), (32, 80), (96, 48)], ids=str)
def test_views(ratio, size):
    slicing, pixels = Slicing.of(size, 8, ratio), drawn("pixels", (2, 3, *size)).double()
    height, width = (naive.window_side(side, ratio, 8) for side in size)
    views, whole = slicing.cut(pixels), slicing.global_view(pixels)
    for index, photo in enumerate(pixels):
        wanted = naive.cut(photo, (height, width))
        assert [each[index].tolist() for each in views] == [each.tolist() for each in wanted]
        torch.testing.assert_close(whole[index], naive.bilinear(photo, (height, width)), atol=1e-9, rtol=0)


@RATIOS
def test_maps_of_slices_are_put_together(ratio):
    slicing = Slicing.of((48, 80), 8, ratio)
    rows, columns = slicing.grid
    maps = [drawn(f"slice {number}", (2, rows, columns, WIDTH)) for number in range(len(slicing.corners))]
    whole = slicing.tile(maps)
    assert whole.shape == (2, 6, 10, WIDTH)
    for index in range(2):
        of_photo = [each[index].permute(2, 0, 1) for each in maps]
        close(whole[index].permute(2, 0, 1), naive.tile(of_photo, (48, 80), slicing.window, 8))


@RATIOS
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 80), (50, 31)], ids=str)
def test_slices_of_a_padded_photo_hold_all_of_it(ratio, size):
    """Padding is the least that makes the number of patches even, and cutting loses no pixel."""
    padded = pad_to_slices(drawn("photo", (1, 3, *size)), 8)
    added = [after - before for after, before in zip(padded.shape[2:], size, strict=True)]
    assert all(0 <= more < 16 for more in added)
    assert not any(side % 16 for side in padded.shape[2:])
    height, width = size
    assert torch.equal(padded[..., :height, :width], drawn("photo", (1, 3, *size)))
    assert padded.count_nonzero() == 3 * height * width
    slicing = Slicing.of((padded.shape[2], padded.shape[3]), 1, ratio)  # each pixel its own patch
    whole = slicing.tile([each.permute(0, 2, 3, 1) for each in slicing.cut(padded)])
    assert torch.equal(whole, padded.permute(0, 2, 3, 1))


@pytest.mark.parametrize("norm", ["high", "both", "none"])
@pytest.mark.parametrize("source", ["low", "high"])
@pytest.mark.parametrize(("clip_width", "low_grid"), [(WIDTH, (3, 2)), (4, (4, 3))])
def test_fusion(norm, source, clip_width, low_grid):
    """With CLIP's channels and with others; to twice the size, and to less, as of overlapping slices."""
    settings = tiny_mrovseg.changed(fusion_norm=norm, attention_source=source)
    module, state = filled(MultiResolutionFusion(WIDTH, clip_width, norm=norm, source=source), "mrf.3.")
    high, low = drawn("high", (clip_width, 6, 4)), drawn("low", (clip_width, *low_grid))
    fused, attention = module(ours(high), ours(low))
    wanted, wanted_attention = naive.fuse(state, 3, high, low, settings)
    close(theirs(fused), wanted)
    close(theirs(attention), wanted_attention)


@pytest.mark.parametrize("skip_grid", [(2, 3), (1, 2)], ids=str)
def test_doubling(skip_grid):
    module, state = filled(Doubling(WIDTH), "up.")
    x, skip = drawn("x", (WIDTH, 2, 3)), drawn("skip", (WIDTH, *skip_grid))
    doubled = naive.doubled(state, "up.conv", torch.cat([x, naive.bilinear(skip, (2, 3))]))
    wanted = naive.at_each_place(doubled, lambda t: naive.gelu(naive.layer_norm(state, "up.norm", t, naive.NORM_EPS)))
    close(theirs(module(ours(x), ours(skip))), wanted)


@pytest.mark.parametrize("size", [(2, 3), (3, 5), (4, 6)], ids=str)
def test_max_pool(size):
    maps = drawn("maps", (WIDTH, 4, 6))
    close(theirs(max_pool(ours(maps), size)), naive.shrunk(maps, size, lambda areas: areas.amax((1, 2))))


def test_attention_masks_of_every_head_and_block():
    """Two sets of three heads, of queries that two photos do not share."""
    mlp, state = filled(MLP(WIDTH, 4, 4, 2 * 3 * 4), "mlp_local.")
    state = {**state, "bias_local.weight": torch.ones(1, 1), "bias_local.bias": torch.zeros(1)}
    queries, maps = drawn("queries", (2, 5, 4)), drawn("maps", (2, WIDTH, 2, 3))
    found = attention_biases(queries, mlp(maps.permute(0, 2, 3, 1)), heads=3)
    assert found.shape == (2, 2, 3, 5, 6)
    for photo in range(2):
        wanted = naive.biases(state, "local", queries[photo], maps[photo])
        close(found[:, photo].flatten(0, 1), torch.stack(wanted))


@pytest.mark.parametrize("self_key", [False, True])
@pytest.mark.parametrize("masked", [False, True], ids=["no masks", "masks"])
def test_recognition(self_key, masked):
    """Attention masks of zero are plain cross attention of class tokens to patches."""
    model = tiny_mrovseg.build()
    tower, heads, width = model.clip_visual, tiny_mrovseg.HEADS, tiny_mrovseg.WIDTH
    tokens, keys = drawn("tokens", (2, 4, width)), [drawn(f"keys {step}", (2, 7, width)) for step in range(2)]
    masks = [masked * drawn(f"masks {step}", (2, heads, 4, 7)) for step in range(2)]
    found = recognise(tower, 3, tokens, keys, masks, self_key)
    for photo in range(2):
        x = tokens[photo]
        for step in range(2):
            own = list(masks[step][photo]) if masked else None
            x = naive.read_patches(model.state_dict(), 3 + step, x, keys[step][photo], own, heads, self_key)
        close(found[photo], naive.clip_end(model.state_dict(), x))
