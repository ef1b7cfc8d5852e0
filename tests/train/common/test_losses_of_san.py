"""Losses and matching at points against numbers of SAN's released code, which MROVSeg's training follows.

Sizes stand in the fixture; inputs follow from names. torch's random numbers are replaced, the same for SAN and for us.
"""

import pytest
import torch
from torch import Tensor

from tests.helpers.oracle import drawn, fixture
from train.common import mask_losses, matcher
from train.common.loss_terms import LossTerms, PointSampling
from train.common.mask_losses import Segments

CASES = pytest.mark.parametrize("case", fixture("san_losses.json")["cases"], ids=lambda case: case["name"])


def even(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers from 0 to 1."""
    return drawn(name, shape) / 12**0.5 + 0.5


def terms(case: dict) -> LossTerms:
    sampling = PointSampling(points=case["sizes"][-1], oversampling=3.0, importance=0.75)
    return LossTerms(classes=2, masks=5, dice=5, void=0.1, mask_term="cross entropy", sampling=sampling)


def inputs(case: dict) -> tuple[Tensor, Tensor, list[Segments]]:
    """Class logits, mask logits at a quarter of the size, and blocks of labels; an image among three is unlabelled."""
    name, (batch, queries, classes, height, width, spans, _) = case["name"], case["sizes"]
    logits = 3 * drawn(f"{name} logits", (batch, queries, classes + 1))
    masks = 3 * drawn(f"{name} masks", (batch, queries, height // 4, width // 4))
    labels = (even(f"{name} labels", (batch, height // 8, width // 8)) * (spans + 1)).long() - 1
    if batch == 3:
        labels[1] = -1
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return logits.requires_grad_(), masks.requires_grad_(), [Segments.of(each) for each in labels]


@pytest.fixture
def scripted_points(monkeypatch, case):
    """torch's n-th random numbers are those of the n-th name, as they were for SAN."""
    calls = []

    def rand(*shape: int, device=None) -> Tensor:
        calls.append(shape)
        return even(f"{case['name']} points {len(calls)}", shape)

    monkeypatch.setattr(torch, "rand", rand)


@CASES
def test_losses_and_gradients(case, scripted_points):
    logits, masks, segments = inputs(case)
    count = mask_losses.mask_count(segments)
    found = mask_losses.layer_losses(list(logits), masks, segments, count, terms(case))
    assert [found[name].item() for name in ("classes", "masks", "dice")] == pytest.approx(case["losses"], rel=1e-5)
    gradients = torch.autograd.grad(sum(found.values()), (logits, masks))  # type: ignore[arg-type]
    assert [each.norm().item() for each in gradients] == pytest.approx(case["gradient_norms"], rel=1e-5)


@CASES
def test_matches(case, scripted_points, monkeypatch):
    found = []

    def recorded(*arguments):
        found.append(matcher.match_queries(*arguments))
        return found[-1]

    monkeypatch.setattr(mask_losses, "match_queries", recorded)
    logits, masks, segments = inputs(case)
    mask_losses.layer_losses(list(logits), masks, segments, mask_losses.mask_count(segments), terms(case))
    assert [queries.tolist() for queries, _ in found] == case["queries"]
    assert [targets.tolist() for _, targets in found] == case["segments"]
