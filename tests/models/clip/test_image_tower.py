"""The steps of the image tower, plain and optimised, against open_clip's own modules on equal random weights."""

import copy
from itertools import pairwise

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.image_tower import ImageTower
from ovseg_demo.models.clip.optimised import OptimisedBlock, optimise
from ovseg_demo.models.clip.positions import resize_positions

PATCH, SIDE, WIDTH, HEADS, LAYERS, DIMENSIONS = 4, 16, 32, 2, 4, 12
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def vision_transformer(**options) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "mlp_ratio": 4.0, "output_dim": DIMENSIONS}
    made = VisionTransformer(SIDE, PATCH, **{**sizes, "act_layer": QuickGELU, **options})
    for name, value in made.named_parameters():
        nn.init.normal_(value, mean=float("ln_" in name and name.endswith("weight")), std=0.2)
    return made.eval().requires_grad_(False)


@pytest.fixture
def stock() -> VisionTransformer:
    return vision_transformer()


@pytest.fixture(params=[False, True], ids=["plain", "optimised"])
def tower(stock, request) -> ImageTower:
    made = ImageTower(copy.deepcopy(stock)).eval()
    return optimise(made, "float32") if request.param else made


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def pixels(height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


def regridded(stock: VisionTransformer, grid: tuple[int, int], rule: str) -> VisionTransformer:
    """open_clip's tower for images of a grid."""
    made = copy.deepcopy(stock)
    made.positional_embedding = nn.Parameter(resize_positions(stock.positional_embedding, grid, rule))
    return made


def states(stock: VisionTransformer, given: Tensor) -> list[Tensor]:
    """The tokens before every block and after the last, by open_clip's modules."""
    found = [stock._embeds(given)]
    for block in stock.transformer.resblocks:
        found.append(block(found[-1]))
    return found


def test_weights_are_named_as_in_open_clip(stock):
    tower = ImageTower(copy.deepcopy(stock))
    assert tower.state_dict().keys() == stock.state_dict().keys()
    assert all(torch.equal(value, stock.state_dict()[name]) for name, value in tower.state_dict().items())
    tower.load_state_dict(stock.state_dict())
    assert (tower.image_size, tower.patch_size, tower.output_dim) == ((SIDE, SIDE), (PATCH, PATCH), DIMENSIONS)


def test_images_are_embedded_as_by_open_clip(stock, tower):
    torch.testing.assert_close(tower(pixels()), stock(pixels()), **CLOSE)


@pytest.mark.parametrize("rule", ["bilinear", "bicubic", "bicubic-offset"])
@pytest.mark.parametrize("grid", [(3, 7), (2, 8), (6, 2)])
def test_images_of_other_sizes_get_positions_by_the_towers_rule(stock, grid, rule):
    given = pixels(grid[0] * PATCH, grid[1] * PATCH)
    tower = ImageTower(copy.deepcopy(stock), rule)
    torch.testing.assert_close(tower(given), regridded(stock, grid, rule)(given), **CLOSE)


def test_pixels_beyond_the_last_whole_patch_are_not_read(tower):
    given = pixels(14, 23)
    _, grid = tower.patchify(given)
    assert grid == (3, 5)
    torch.testing.assert_close(tower(given), tower(given[..., :12, :20].contiguous()), **CLOSE)


def test_images_of_a_batch_do_not_meet(tower):
    torch.testing.assert_close(tower(pixels())[1:2], tower(pixels()[1:2]), **CLOSE)
    assert tower(pixels()[:0]).shape == (0, DIMENSIONS)


def test_all_tokens_are_projected_as_the_class_token_is(stock, tower):
    tokens = tower.run_blocks(tower.embed(*tower.patchify(pixels())))
    assert tokens.shape == (3, 17, WIDTH)
    expected = stock.ln_post(states(stock, pixels())[-1]) @ stock.proj
    torch.testing.assert_close(tower.project(tokens), expected, **CLOSE)
    torch.testing.assert_close(tower.project(tokens)[:, 0], tower(pixels()), **CLOSE)


def test_features_are_read_between_blocks(stock, tower):
    """As MROVSeg reads them after several blocks, the first time before all of them."""
    expected = states(stock, pixels())
    tokens = tower.embed(*tower.patchify(pixels()))
    torch.testing.assert_close(tokens, expected[0], **CLOSE)
    for start, stop in pairwise((0, 1, 3, LAYERS)):
        tokens = tower.run_blocks(tokens, start, stop)
        torch.testing.assert_close(tokens, expected[stop], **CLOSE)
    torch.testing.assert_close(tower.run_blocks(expected[0], stop=-1), expected[-2], **CLOSE)
    assert torch.equal(tower.run_blocks(tokens, 2, 2), tokens)


def test_the_first_tokens_can_be_asked_for_alone(tower):
    tokens = tower.embed(*tower.patchify(pixels()))
    every = tower.run_blocks(tokens)
    for queries in (1, 5):
        torch.testing.assert_close(tower.run_blocks(tokens, queries=queries), every[:, :queries], **CLOSE)
    assert torch.equal(tower.run_blocks(tokens, 1, 1, queries=2), tokens[:, :2])


def test_patches_without_a_class_token_and_regions_in_their_place(stock, tower):
    """As in SegCLIP: the class token is dropped before the first block; late blocks read regions."""
    tokens = tower.embed(*tower.patchify(pixels()))[:, 1:]
    regions = tower.run_blocks(tokens, stop=2).unflatten(1, (4, 4)).mean(2)
    found = tower.project(tower.run_blocks(regions, start=2))
    x = stock._embeds(pixels())[:, 1:]
    for block in stock.transformer.resblocks[:2]:
        x = block(x)
    x = x.unflatten(1, (4, 4)).mean(2)
    for block in stock.transformer.resblocks[2:]:
        x = block(x)
    torch.testing.assert_close(found, stock.ln_post(x) @ stock.proj, **CLOSE)


def test_another_class_token_enters_before_its_position(stock):
    class Doubled(ImageTower):
        def class_token(self) -> Tensor:
            return 2 * self.class_embedding

    tower, doubled = Doubled(copy.deepcopy(stock)), copy.deepcopy(stock)
    doubled.class_embedding = nn.Parameter(2 * stock.class_embedding)
    torch.testing.assert_close(tower(pixels()), doubled(pixels()), **CLOSE)
    assert (tower(pixels()) - stock(pixels())).abs().max() > 1e-2


def test_a_block_can_be_replaced(stock, tower):
    class Halved(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens / 2

    tower.blocks[1] = Halved()
    x = stock._embeds(pixels())
    for index, block in enumerate(stock.transformer.resblocks):
        x = x / 2 if index == 1 else block(x)
    torch.testing.assert_close(tower(pixels()), stock.ln_post(x)[:, 0] @ stock.proj, **CLOSE)
    assert isinstance(optimise(tower, "float32").blocks[1], Halved)
    assert isinstance(tower.blocks[2], OptimisedBlock)


def test_the_last_block_can_be_taken_apart(stock, tower):
    """Recombined as it was, it is the block; with keys for queries, the attention that NACLIP begins with."""
    last, tokens = tower.blocks[-1], states(stock, pixels())[-2]
    q, k, v = last.queries_keys_values(tokens)
    assert q.shape == (3, HEADS, 17, WIDTH // HEADS)
    attended = last.merge_heads((q @ k.mT).softmax(-1) @ v)
    torch.testing.assert_close(last.feed_forward(tokens + attended), states(stock, pixels())[-1], **CLOSE)

    theirs = stock.transformer.resblocks[-1]
    x = F.linear(theirs.ln_1(tokens), theirs.attn.in_proj_weight, theirs.attn.in_proj_bias)
    _, keys, values = (part.unflatten(2, (HEADS, -1)) for part in x.chunk(3, 2))
    logits = torch.einsum("blhd,bmhd->bhlm", keys, keys) * (WIDTH // HEADS) ** -0.5
    gathered = torch.einsum("bhlm,bmhd->blhd", logits.softmax(-1), values).flatten(2)
    scale = (WIDTH // HEADS) ** -0.5
    found = last.merge_heads((k @ k.mT * scale).softmax(-1) @ v)
    torch.testing.assert_close(found, theirs.attn.out_proj(gathered), **CLOSE)


def test_other_tokens_attend_to_the_patches(stock, tower):
    """As MROVSeg's class tokens do in the last blocks, with a bias for every head and patch."""
    theirs, patches = stock.transformer.resblocks[2], states(stock, pixels())[2][:, 1:]
    tokens, bias = torch.randn(3, 5, WIDTH), torch.randn(3, HEADS, 5, 16)
    found = tower.blocks[2](tokens, bias, context=patches)
    weights, biases = theirs.attn.in_proj_weight.chunk(3), theirs.attn.in_proj_bias.chunk(3)
    expected = torch.empty(3, 5, WIDTH)
    for image in range(3):
        normed, seen = theirs.ln_1(tokens[image]), theirs.ln_1(patches[image])
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((normed, seen, seen), weights, biases, strict=True))
        gathered = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            logits = q[:, part] @ k[:, part].T * (WIDTH // HEADS) ** -0.5 + bias[image, head]
            gathered.append(logits.softmax(1) @ v[:, part])
        x = tokens[image] + theirs.attn.out_proj(torch.cat(gathered, 1))
        expected[image] = x + theirs.mlp(theirs.ln_2(x))
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(tower.blocks[2](tokens, bias, queries=2, context=patches), expected[:, :2], **CLOSE)
    torch.testing.assert_close(
        tower.blocks[2](tokens, context=patches), tower.blocks[2](tokens, 0 * bias, context=patches), **CLOSE
    )


def test_biases_of_attention_keep_their_effect_in_bfloat16(stock):
    block = TransformerBlock(stock.transformer.resblocks[0])
    tokens, bias = torch.randn(2, 7, WIDTH), torch.randn(2, HEADS, 7, 7)
    found = OptimisedBlock(block, "bfloat16")(tokens, bias)
    assert (found - block(tokens, bias)).norm() / (block(tokens, bias) - tokens).norm() < 0.02


def test_appended_tokens_are_read_and_dropped(stock, tower):
    """As TagCLIP's prompts: they come last here, after the class token in the release."""
    prompts, tokens = torch.randn(3, 2, WIDTH), states(stock, pixels())[1]
    found = tower.run_blocks(torch.cat([tokens, prompts], 1), 1, 2, queries=17)
    expected = stock.transformer.resblocks[1](torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], 1))
    torch.testing.assert_close(found, torch.cat([expected[:, :1], expected[:, 3:]], 1), **CLOSE)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ls_init_value": 0.1}, r"ls_1\.gamma"),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, r"attn_pool"),
        ({"pool_type": "avg"}, "avg pooling"),
    ],
)
def test_towers_with_other_parts_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        ImageTower(vision_transformer(**options))
