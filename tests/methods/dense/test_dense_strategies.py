"""The last block by every strategy, against loops over images, heads and tokens."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock

from ovseg_demo.methods.dense.strategies import Strategy, last_block, neighbourhood
from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.optimised import OptimisedBlock

WIDTH, HEADS, GRID = 24, 3, (2, 5)
STRATEGIES = pytest.mark.parametrize("strategy", get_args(Strategy))


@pytest.fixture(scope="module")
def block() -> TransformerBlock:
    torch.manual_seed(0)
    made = ResidualAttentionBlock(WIDTH, HEADS)
    torch.nn.init.normal_(made.attn.in_proj_weight, std=0.5)
    torch.nn.init.normal_(made.attn.in_proj_bias, std=0.5)
    return TransformerBlock(made).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randn(2, 1 + GRID[0] * GRID[1], WIDTH, generator=torch.Generator().manual_seed(1))


def softmax(logits: list[float]) -> np.ndarray:
    powers = np.exp(np.array(logits) - max(logits))
    return powers / powers.sum()


def omega(i: int, j: int) -> float:
    """Of two tokens, the class token being 0."""
    if 0 in (i, j):
        return 0.0
    (y, x), (y2, x2) = (divmod(token - 1, GRID[1]) for token in (i, j))
    return math.exp(-((y - y2) ** 2 + (x - x2) ** 2) / (2 * 5.0**2))


def attention(strategy: str, q: np.ndarray, k: np.ndarray, i: int) -> np.ndarray:
    """The weights of all tokens for token i, of one head."""
    count, root = len(k), math.sqrt(q.shape[1])
    if strategy == "maskclip":
        return np.eye(count)[i]
    if strategy == "vanilla":
        return softmax([q[i] @ k[j] / root for j in range(count)])
    keys = softmax([k[i] @ k[j] / root + (omega(i, j) if strategy == "naclip" else 0) for j in range(count)])
    return keys + softmax([q[i] @ q[j] / root for j in range(count)]) if strategy == "sclip" else keys


def derived(block: TransformerBlock, tokens: torch.Tensor, strategy: str) -> torch.Tensor:
    width, found = WIDTH // HEADS, []
    for image in tokens:
        projected = block.ln_1(image) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        gathered = np.zeros((len(image), WIDTH))
        for head in range(HEADS):
            q, k, v = (
                projected[:, start + head * width : start + (head + 1) * width].double().numpy()
                for start in (0, WIDTH, 2 * WIDTH)
            )
            for i in range(len(image)):
                gathered[i, head * width : (head + 1) * width] = attention(strategy, q, k, i) @ v
        attended = block.attn.out_proj(torch.from_numpy(gathered).float())
        if strategy in ("sclip", "vanilla"):
            attended = image + attended
            attended = attended + block.mlp(block.ln_2(attended))
        found.append(attended)
    return torch.stack(found)


@STRATEGIES
def test_a_strategy_is_what_its_formula_says(block, tokens, strategy):
    expected = derived(block, tokens, strategy)
    found = last_block(block, tokens, GRID, strategy)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    fast = last_block(OptimisedBlock(block, "float32"), tokens, GRID, strategy)
    torch.testing.assert_close(fast, expected, atol=1e-5, rtol=1e-5)


@STRATEGIES
def test_bfloat16_is_close_and_returns_float32(block, tokens, strategy):
    expected = last_block(block, tokens, GRID, strategy)
    found = last_block(OptimisedBlock(block, "bfloat16"), tokens, GRID, strategy)
    assert found.dtype == torch.float32
    assert 1e-5 < (found - expected).norm() / expected.norm() < 0.03


def test_strategies_differ(block, tokens):
    found = [last_block(block, tokens, GRID, strategy)[:, 1:] for strategy in get_args(Strategy)]
    for index, one in enumerate(found):
        for other in found[:index]:
            assert (one - other).abs().max() > 0.01


def test_vanilla_is_the_block_itself(block, tokens):
    torch.testing.assert_close(last_block(block, tokens, GRID, "vanilla"), block(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (2, 5), (4, 3)])
def test_the_neighbourhood_is_a_gaussian_of_the_distance_in_patches(grid):
    found = neighbourhood(grid)
    count = grid[0] * grid[1]
    assert found.shape == (1 + count, 1 + count)
    assert (found[0] == 0).all()
    assert (found[:, 0] == 0).all()
    for i in range(count):
        for j in range(count):
            (y, x), (y2, x2) = divmod(i, grid[1]), divmod(j, grid[1])
            assert found[1 + i, 1 + j] == pytest.approx(math.exp(-((y - y2) ** 2 + (x - x2) ** 2) / 50), abs=1e-6)
