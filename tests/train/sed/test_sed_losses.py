"""SED's losses against the formula written out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.datasets.base import IGNORE
from train.common.labelled_batches import BACKGROUND
from train.sed.losses import mean_cross_entropy, sed_losses

CLASSES, SIZE = 5, (48, 80)


def drawn(seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Logits of four resolutions, and labels of which a seventh is missing, and a seventh is known to be no class."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(3 * 2**stage, 5 * 2**stage) for stage in range(4)]
    logits = [3 * torch.randn(2, CLASSES, *size, generator=generator) for size in sizes]
    return [each.requires_grad_() for each in logits], torch.randint(-2, CLASSES, (2, *SIZE), generator=generator)


def written_out(logits: Tensor, labels: Tensor, ignore: str) -> Tensor:
    """From targets of 0 and 1 for every pixel and class."""
    fine = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False).movedim(1, -1)
    targets = (labels[..., None] == torch.arange(CLASSES)).float()
    losses = F.binary_cross_entropy_with_logits(fine, targets, reduction="none")
    return losses.mean() if ignore == "zeros" else losses[labels != IGNORE].mean()


@pytest.mark.parametrize("ignore", ["zeros", "masked"])
def test_losses_and_gradients_are_those_of_the_formula(ignore):
    logits, labels = drawn()
    found = sed_losses(logits, labels, ignore)
    assert list(found) == ["before stage 1", "after stage 1", "after stage 2", "result"]
    expected = [written_out(each, labels, ignore) for each in logits]
    torch.testing.assert_close(torch.stack(list(found.values())), torch.stack(expected))
    ours = torch.autograd.grad(sum(found.values()), logits)
    for one, other in zip(ours, torch.autograd.grad(sum(expected), logits), strict=True):
        torch.testing.assert_close(one, other)


def test_unlabelled_pixels_teach_absence_or_nothing():
    logits, labels = drawn()
    labels[:, :, 40:] = IGNORE
    zeros, masked = (
        torch.autograd.grad(mean_cross_entropy(logits[-1], labels, ignore), logits[-1])[0]
        for ignore in ("zeros", "masked")
    )
    assert (zeros[..., 22:] > 0).all(), "every class is pushed down there"
    assert (masked[..., 22:] == 0).all()


@pytest.mark.parametrize("ignore", ["zeros", "masked"])
def test_background_teaches_absence(ignore):
    logits, labels = drawn()
    labels[:, :, 40:] = BACKGROUND
    [found] = torch.autograd.grad(mean_cross_entropy(logits[-1], labels, ignore), logits[-1])
    assert (found[..., 22:] > 0).all()


@pytest.mark.parametrize("ignore", ["zeros", "masked"])
def test_a_photo_without_labels_gives_a_finite_loss(ignore):
    logits, labels = drawn()
    found = sed_losses(logits, torch.full_like(labels, IGNORE), ignore)
    expected = [0.0] * 4 if ignore == "masked" else [F.softplus(each).mean().item() for each in map(upsampled, logits)]
    assert [value.item() for value in found.values()] == pytest.approx(expected)
    sum(found.values()).backward()
    assert all(each.grad.isfinite().all() for each in logits)


def upsampled(logits: Tensor) -> Tensor:
    return F.interpolate(logits, SIZE, mode="bilinear", align_corners=False)


def test_nothing_of_full_resolution_is_kept_for_the_backward_pass():
    logits, labels = drawn()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        sum(sed_losses(logits, labels).values())
    # The logits of an image as they come, its labels, and which of them count.
    assert 0 < max(kept) < CLASSES * SIZE[0] * SIZE[1]


def test_losses_are_computed_in_full_precision():
    logits, labels = drawn()
    plain = sed_losses([each.bfloat16() for each in logits], labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = sed_losses([each.bfloat16() for each in logits], labels)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert {name: value.item() for name, value in found.items()} == {n: value.item() for n, value in plain.items()}
