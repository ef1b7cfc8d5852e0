"""The losses and the matching against numbers of the published code, and what they do where that has no answer."""

from itertools import permutations
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from torch import Tensor

from tests.helpers.oracle import fixture
from tests.helpers.processes import run_in_two_processes
from train.common import mask_losses as losses
from train.common import matcher
from train.common.mask_losses import Segments

CASES = fixture("maskformer_losses.json")["cases"]


def drawn(seed: int, sizes: list[int]) -> tuple[Tensor, Tensor, list[Segments]]:
    """Random class logits and mask logits, and blocks of random labels."""
    batch, queries, classes, side, spans = sizes
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, queries, classes + 1, generator=generator)
    masks = 3 * torch.randn(batch, queries, side // 4, side // 4, generator=generator)
    labels = torch.randint(-1, spans, (batch, side // 8, side // 8), generator=generator)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return logits.requires_grad_(), masks.requires_grad_(), [Segments.of(each) for each in labels]


def layer(logits, masks: Tensor, segments: list[Segments]) -> Tensor:
    return torch.stack(list(losses.layer_losses(logits, masks, segments, losses.mask_count(segments)).values()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed {case['seed']}")
def test_losses_gradients_and_matches_are_those_of_the_published_code(case):
    logits, masks, segments = drawn(case["seed"], case["sizes"])
    found = layer(list(logits), masks, segments)
    assert found.tolist() == pytest.approx(case["losses"], rel=1e-5)
    gradients = torch.autograd.grad(found.sum(), (logits, masks))
    assert [gradient.norm().item() for gradient in gradients] == pytest.approx(case["gradient_norms"], rel=1e-4)
    for own, predicted, wanted, queries, targets in zip(
        logits, masks, segments, case["queries"], case["targets"], strict=True
    ):
        pairs = matcher.match_queries(own, predicted, wanted.classes, wanted.shrunk(predicted.shape[1:]))
        assert [pair.tolist() for pair in pairs] == [queries, targets]


def test_segments_are_shrunk_to_each_fourth_pixel():
    labels = torch.randint(-1, 3, (16, 24), generator=torch.Generator().manual_seed(0))
    segments = Segments.of(labels)
    assert segments.classes.tolist() == [0, 1, 2]
    assert torch.equal(segments.shrunk((4, 6)), labels[::4, ::4] == torch.arange(3)[:, None, None])


def test_the_assignment_is_the_cheapest_of_all():
    logits, masks, [segments] = drawn(5, [1, 5, 4, 32, 3])
    small = segments.shrunk(masks.shape[2:])
    found = matcher.matching_cost(logits[0], masks[0], segments.classes, small)
    queries, targets = matcher.match_queries(logits[0], masks[0], segments.classes, small)
    columns = torch.arange(len(segments.classes))
    cheapest = min(found[list(rows), columns].sum() for rows in permutations(range(5), len(columns)))
    torch.testing.assert_close(found[queries, targets].sum(), cheapest)


def test_a_perfect_prediction_costs_nothing():
    labels = torch.zeros(32, 32, dtype=torch.int64)
    labels[:, 16:] = 1
    segments = Segments.of(labels)
    masks = 40 * (2 * segments.shrunk((8, 8)).float() - 1)[None]
    logits = torch.tensor([[40.0, 0, 0], [0, 40.0, 0]])
    found = layer([logits], masks, [segments])
    assert found[0] == 0
    assert (found[1:] < 0.1).all(), "only the rim, which is enlarged smoothly, is left"
    assert (layer([logits.flip(0)], masks, [segments]) > found + 0.01)[0]


def test_images_without_segments_teach_only_that_there_is_nothing():
    logits, masks, _ = drawn(3, [2, 7, 4, 64, 1])
    empty = [Segments.of(torch.full((64, 64), -1))] * 2
    found = layer(list(logits), masks, empty)
    torch.testing.assert_close(found[0], -logits.log_softmax(2)[..., -1].mean())
    assert found[1:].tolist() == [0, 0]
    for gradient in torch.autograd.grad(found.sum(), (logits, masks)):  # processes wait for the gradient of all parts
        assert gradient.isfinite().all()


def test_each_image_has_its_own_vocabulary():
    logits, masks, segments = drawn(6, [2, 8, 9, 32, 4])
    wide = torch.cat([logits[:, :, :-1], torch.full((2, 8, 5), -torch.inf), logits[:, :, -1:]], 2)
    mixed = layer([logits[0], wide[1]], masks, segments)
    torch.testing.assert_close(mixed, layer(list(logits), masks, segments))


def test_void_queries_count_a_tenth():
    logits = [torch.tensor([[1.0, 0, 2], [0, 3, 1]]), torch.tensor([[0.5, 1.0]])]
    found = losses.class_loss(logits, [torch.tensor([0, 2]), torch.tensor([1])])
    first, second, third = (
        -logits[0].log_softmax(1)[0, 0],
        -logits[0].log_softmax(1)[1, 2],
        -logits[1].log_softmax(1)[0, 1],
    )
    torch.testing.assert_close(found, (first + 0.1 * second + 0.1 * third) / 1.2)


def test_numbers_that_are_none_are_left_for_the_loss_to_tell():
    logits, masks, [segments] = drawn(7, [1, 4, 3, 32, 2])
    broken = masks.detach().clone()
    broken[0, 1] = torch.nan
    queries, _ = matcher.match_queries(logits[0], broken[0], segments.classes, segments.shrunk((8, 8)))
    assert len(queries) == len(segments.classes)
    assert layer(list(logits), torch.full_like(masks, torch.nan), [segments])[1].isnan()


def test_processes_share_the_count_of_segments(tmp_path):
    """One process has three segments and the other none: both divide by 1.5, and no count is below 1."""
    run_in_two_processes(_save_counts, tmp_path)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)] == [[1.5, 1.0]] * 2
    assert losses.mask_count(_segments(3)) == 3


def _segments(count: int) -> list[Segments]:
    return [Segments.of(torch.arange(-1, count).expand(4, -1)), Segments.of(torch.full((4, 4), -1))]


def _save_counts(folder: Path) -> None:
    state = PartialState(cpu=True)
    found = [losses.mask_count(_segments(0 if state.is_main_process else count)).item() for count in (3, 1)]
    torch.save(found, folder / f"{state.process_index}.pt")
    state.destroy_process_group()
