"""Position embeddings on other grids, by each published rule, against derivations of their own."""

import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.models.clip.positions import resize_positions, trained_grid

SIDE, WIDTH = 4, 6
RULES = pytest.mark.parametrize("rule", ["bilinear", "bicubic", "bicubic-offset"])


@pytest.fixture
def positions() -> torch.Tensor:
    return torch.randn(1 + SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0))


def patch_grid(positions: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The positions of patches, (W, rows, columns)."""
    return positions[1:].reshape(rows, columns, -1).permute(2, 0, 1)


@RULES
def test_the_trained_grid_keeps_its_positions(positions, rule):
    assert trained_grid(positions) == (SIDE, SIDE)
    assert torch.equal(resize_positions(positions, (SIDE, SIDE), rule), positions)


@RULES
def test_the_class_token_keeps_its_position(positions, rule):
    found = resize_positions(positions, (3, 7), rule)
    assert found.shape == (1 + 3 * 7, WIDTH)
    assert torch.equal(found[0], positions[0])


@RULES
def test_positions_stay_the_same_where_they_are_all_equal(rule):
    flat = torch.arange(WIDTH).float().expand(1 + SIDE * SIDE, -1)
    torch.testing.assert_close(resize_positions(flat, (5, 9), rule), flat[:1].expand(1 + 45, -1))


def kernel(rule: str, distance: float) -> float:
    """The weight of a neighbour: linear, or Keys' cubic with a = -0.75."""
    d, a = abs(distance), -0.75
    if rule == "bilinear":
        return max(0.0, 1 - d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


@RULES
@pytest.mark.parametrize("grid", [(3, 7), (2, 2), (6, 4), (9, 5)])
def test_positions_are_interpolated_where_the_rule_samples_them(positions, rule, grid):
    """A sum over all trained positions, with the 0.1 in the sampling positions where the rule has it."""
    offset = 0.1 if rule == "bicubic-offset" else 0.0
    given = patch_grid(positions, SIDE, SIDE)
    weights = []
    for wanted in grid:
        of_axis = torch.zeros(wanted, SIDE)
        for index in range(wanted):
            centre = (index + 0.5) * SIDE / (wanted + offset) - 0.5
            if rule == "bilinear":
                centre = max(centre, 0.0)
            for neighbour in range(-3, SIDE + 3):
                of_axis[index, min(max(neighbour, 0), SIDE - 1)] += kernel(rule, neighbour - centre)
        weights.append(of_axis)
    expected = torch.einsum("ya,xb,wab->wyx", *weights, given)
    found = patch_grid(resize_positions(positions, grid, rule), *grid)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_offset_rule_leaves_positions_of_as_many_patches_as_they_are(positions):
    """NACLIP's code compares the numbers of patches, not the grids."""
    assert torch.equal(resize_positions(positions, (2, 8), "bicubic-offset"), positions)
    assert not torch.equal(resize_positions(positions, (2, 8), "bicubic"), positions)


def test_positions_can_be_trained_on_another_grid(positions):
    positions.requires_grad_()
    resize_positions(positions, (5, 6), "bicubic").sum().backward()
    assert positions.grad is not None
    assert F.cosine_similarity(positions.grad[0], torch.ones(WIDTH), dim=0) > 0.999
    assert (positions.grad[1:] > 0).all()
