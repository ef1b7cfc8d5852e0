"""The parts in which MROVSeg follows SAN, against numbers of SAN's released code on equal weights, to 1e-5.

The fixture has some 40 numbers of each output. Weights and inputs follow from names. SAN's tokens come one axis earlier
than ours and its maps are (B, D, h, w); both differences are undone here.
"""

import math

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from ovseg_demo.methods.mrovseg.adapter import MultiResAdapter
from ovseg_demo.methods.mrovseg.classifier import class_logits
from ovseg_demo.methods.mrovseg.mask_decoder import MLP, attention_biases, max_pool
from ovseg_demo.methods.mrovseg.recognition import recognise
from ovseg_demo.methods.mrovseg.slices import Slicing
from ovseg_demo.models.clip.image_tower import ImageTower
from tests.helpers.oracle import drawn, fixture, sampled, weights

REFERENCE = fixture("san_modules.json")
WIDTH, QUERIES, GRID = 24, 5, (4, 6)
SPLIT = 2


def filled(module: nn.Module, prefix: str) -> nn.Module:
    """The module with weights that follow from its names behind a prefix."""
    numbers = weights({prefix + name: tuple(each.shape) for name, each in module.state_dict().items()})
    module.load_state_dict({name: numbers[prefix + name] for name in module.state_dict()})
    return module.eval().requires_grad_(False)


def assert_equal(found: Tensor, name: str, *inner: str | int) -> None:
    expected = REFERENCE[name]
    for key in inner:
        expected = expected[key]
    torch.testing.assert_close(sampled(found), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def drawn_map(name: str, channels: int = WIDTH, grid: tuple[int, int] = GRID) -> Tensor:
    return drawn(name, (2, channels, *grid)).permute(0, 2, 3, 1)


def test_adapter():
    """Six blocks on queries and tokens, maps added at five points, positions of another grid, two states read."""
    adapter = MultiResAdapter(WIDTH, WIDTH, blocks=6, heads=3, queries=QUERIES, grid=(4, 4))
    filled(adapter, "adapter.")
    fused = {number: drawn_map(f"fused {number}") for number in range(5)}
    states = adapter(drawn_map("stem"), fused, supervised=(5,))
    for number, (queries, adapted) in enumerate(states):
        assert_equal(queries, "adapter", "queries", number)
        assert_equal(adapted.permute(0, 3, 1, 2), "adapter", "visual", number)


def mask_embeddings() -> Tensor:
    return filled(MLP(WIDTH, 12, 12, 8), "mlp_q.")(drawn("queries", (2, QUERIES, WIDTH)))


def test_masks_are_products_of_queries_and_pixels():
    pixels = filled(MLP(WIDTH, 12, 12, 8), "mlp_pix.")(drawn_map("visual"))
    assert_equal(torch.einsum("bqe,bhwe->bqhw", mask_embeddings(), pixels), "masks")


@pytest.mark.parametrize("branch", ["local", "global"])
def test_attention_masks_of_two_heads(branch):
    """SAN has one branch, which was run twice: on the map, and on what max pooling leaves of it."""
    adapted = drawn_map("visual")
    places = filled(MLP(WIDTH, 12, 12, 2 * 8), f"mlp_{branch}.")(
        adapted if branch == "local" else max_pool(adapted, (2, 3))
    )
    affine = filled(nn.Linear(1, 1), f"bias_{branch}.")
    [found] = attention_biases(mask_embeddings(), places, heads=2)
    assert_equal(affine(found[..., None]), branch)


@pytest.fixture(scope="module")
def tower() -> ImageTower:
    stock = VisionTransformer(32, 8, 32, 5, 2, mlp_ratio=4.0, output_dim=12, act_layer=QuickGELU)
    filled(stock, "clip_visual.")
    return ImageTower(stock, "bicubic")


def layers(tower: ImageTower, pixels: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
    """The tokens before the first block and after each, and their grid."""
    patches, grid = tower.patchify(pixels)
    found = [tower.embed(patches, grid)]
    for block in range(5):
        found.append(tower.run_blocks(found[-1], block, block + 1))
    return found, grid


def test_clip_on_a_grid_that_is_not_its_own(tower):
    tokens, grid = layers(tower, drawn("pixels", (2, 3, 24, 40)))
    assert grid == (3, 5)
    for layer in range(SPLIT + 1):
        assert_equal(tokens[layer][:, 1:].mT, "clip", str(layer))
    assert_equal(tokens[SPLIT][:, :1], "clip", "class token")


def test_recognition_at_one_resolution_is_that_of_san(tower):
    """With the self key, which SAN has and MROVSeg's equation 8 has not."""
    tokens, _ = layers(tower, drawn("pixels", (2, 3, 24, 40)))
    start = tokens[SPLIT][:, :1] + drawn("prop_pos", (1, QUERIES, 32))
    bias = 2 * drawn("bias of one view", (2, 2, QUERIES, 15))
    found = recognise(tower, SPLIT, start, [each[:, 1:] for each in tokens[SPLIT:-1]], [bias] * 3, self_key=True)
    assert_equal(found, "one view")


def test_recognition_at_both_resolutions(tower):
    """SAN's attention on the patches of the global view and of four slices, which advance view by view."""
    pixels = drawn("big pixels", (2, 3, 48, 80))
    slicing = Slicing.of((48, 80), 8)
    views = [slicing.global_view(pixels), *slicing.cut(pixels)]
    tokens, grid = zip(*(layers(tower, view) for view in views), strict=True)
    keys = []
    for layer in range(SPLIT, 5):
        low, *high = (of_view[layer][:, 1:].unflatten(1, grid[0]) for of_view in tokens)
        keys.append(torch.cat([low.flatten(1, 2), slicing.tile(high).flatten(1, 2)], 1))
    bias = torch.cat([2 * drawn(f"{name} bias", (2, 2, QUERIES, n)) for name, n in (("global", 15), ("local", 60))], 3)
    start = tokens[0][SPLIT][:, :1] + drawn("prop_pos", (1, QUERIES, 32))
    assert_equal(recognise(tower, SPLIT, start, keys, [bias] * 3, self_key=True), "both resolutions")


def test_class_logits():
    texts = nn.functional.normalize(drawn("texts", (7, 12)), dim=1)
    embeddings = nn.functional.normalize(drawn("mask embeddings", (2, QUERIES, 12)), dim=2)
    assert_equal(class_logits(embeddings, texts, drawn("bg_embed", (1, 12)), math.exp(math.log(100))), "class logits")
