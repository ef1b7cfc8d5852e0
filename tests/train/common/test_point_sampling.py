"""Points of masks, and losses and matching at points, against loops over points written out."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from train.common import mask_losses, matcher, point_sampling
from train.common.loss_terms import LossTerms, PointSampling
from train.common.mask_losses import Segments

SAMPLING = PointSampling(points=40)
TERMS = LossTerms(classes=2, masks=5, dice=5, mask_term="cross entropy", sampling=SAMPLING)


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, list[Segments]]:
    """Class logits and mask logits of two images that are not square, and their segments."""
    generator = torch.Generator().manual_seed(seed)
    logits, masks = torch.randn(2, 6, 5, generator=generator), 3 * torch.randn(2, 6, 6, 10, generator=generator)
    labels = torch.randint(-1, 4, (2, 3, 5), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return logits.requires_grad_(), masks.requires_grad_(), [Segments.of(each) for each in labels]


def value_at(mask: Tensor, x: float, y: float) -> float:
    """Bilinear between the centres of pixels, with zeros around the mask."""
    height, width = mask.shape
    row, column = y * height - 0.5, x * width - 0.5
    top, left = int(row // 1), int(column // 1)
    total = 0.0
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < height and 0 <= c < width:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * mask[r, c].item()
    return total


def test_values_at_points_are_bilinear():
    masks = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(1))
    points = torch.rand(3, 9, 2, generator=torch.Generator().manual_seed(2))
    expected = [
        [value_at(mask, *point.tolist()) for point in of_mask] for mask, of_mask in zip(masks, points, strict=True)
    ]
    torch.testing.assert_close(point_sampling.values_at(masks, points), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_most_points_are_the_least_certain_of_the_drawn_ones():
    masks = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    found = point_sampling.draw_uncertain_points(masks, SAMPLING)
    torch.manual_seed(3)
    candidates, others = torch.rand(2, 120, 2), torch.rand(2, 10, 2)
    assert found.shape == (2, 40, 2)
    for mask, points, drawn_points, rest in zip(masks, found, candidates, others, strict=True):
        ranked = sorted(drawn_points.tolist(), key=lambda point: abs(value_at(mask, *point)))
        assert sorted(points[:30].tolist()) == sorted(ranked[:30])
        assert torch.equal(points[30:], rest)


def test_losses_at_points_are_those_of_the_formulas(monkeypatch):
    logits, masks, segments = drawn()
    points = torch.rand(8, SAMPLING.points, 2, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(mask_losses, "draw_even_points", lambda count, sampling, device: points[:1])
    monkeypatch.setattr(mask_losses, "draw_uncertain_points", lambda masks, sampling: points[: len(masks)])
    count = mask_losses.mask_count(segments)
    found = mask_losses.layer_losses(list(logits), masks, segments, count, TERMS)

    pairs = [cheapest(*image, points[0]) for image in zip(logits, masks, segments, strict=True)]
    matched = [(image, q, t) for image, pair in enumerate(pairs) for q, t in pair]
    cross_entropies, dices = zip(
        *(
            pixel_losses(masks[image, q], segments[image].masks[t].float(), points[row])
            for row, (image, q, t) in enumerate(sorted(matched))
        ),
        strict=True,
    )
    assert found["masks"].item() == pytest.approx(5 * sum(cross_entropies) / count.item(), rel=1e-5)
    assert found["dice"].item() == pytest.approx(5 * sum(dices) / count.item(), rel=1e-5)
    targets = torch.full((2, 6), 4)
    for image, q, t in matched:
        targets[image, q] = segments[image].classes[t]
    weights = torch.tensor([1, 1, 1, 1, 0.1])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), weights)
    torch.testing.assert_close(found["classes"], 2 * expected)


def cheapest(logits: Tensor, masks: Tensor, truth: Segments, points: Tensor) -> list[tuple[int, int]]:
    """The cheapest assignment of all, as pairs of query and segment."""
    costs = []
    for query, mask in enumerate(masks):
        costs.append([])
        for column, wanted in zip(truth.classes.tolist(), truth.masks, strict=True):
            cross_entropy, dice = pixel_losses(mask, wanted.float(), points)
            costs[-1].append(5 * cross_entropy + 5 * dice - 2 * logits[query].softmax(0)[column].item())
    count = len(truth.classes)
    best = min(permutations(range(6), count), key=lambda rows: sum(costs[row][t] for t, row in enumerate(rows)))
    return [(row, t) for t, row in enumerate(best)]


def pixel_losses(mask: Tensor, wanted: Tensor, points: Tensor) -> tuple[float, float]:
    """The mean binary cross entropy and the Dice loss of a mask at points."""
    scores = torch.tensor([value_at(mask, *point) for point in points.tolist()])
    truth = torch.tensor([value_at(wanted, *point) for point in points.tolist()])
    probabilities = scores.sigmoid()
    cross_entropy = -(truth * probabilities.log() + (1 - truth) * (1 - probabilities).log()).mean().item()
    dice = 1 - (2 * (probabilities * truth).sum() + 1) / (probabilities.sum() + truth.sum() + 1)
    return cross_entropy, dice.item()


def test_images_without_segments_teach_nothing_about_masks():
    logits, masks, _ = drawn()
    empty = [Segments.of(torch.full((24, 40), -1))] * 2
    found = mask_losses.layer_losses(list(logits), masks, empty, mask_losses.mask_count(empty), TERMS)
    assert (found["masks"].item(), found["dice"].item()) == (0, 0)
    gradients = torch.autograd.grad(sum(found.values()), (logits, masks))  # type: ignore[arg-type]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_plain_cross_entropy_differs_from_the_focal_loss_in_the_cost():
    logits, masks, [truth, _] = drawn()
    small = truth.shrunk(masks.shape[2:])
    plain = LossTerms(classes=0, masks=1, dice=0, mask_term="cross entropy")
    cost = matcher.matching_cost(logits[0], masks[0], truth.classes, small, plain)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(masks[0, 2], small[1].float())
    torch.testing.assert_close(cost[2, 1], expected)
