"""TagCLIP's losses against the published code's numbers, and against the formulas written out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.datasets.base import IGNORE
from ovseg_demo.methods.tagclip.decoder import MaskLogits
from tests.helpers.oracle import drawn, fixture
from train.common.labelled_batches import BACKGROUND
from train.tagclip import losses as module
from train.tagclip.losses import UNSEEN, LossTerms, tagclip_losses

SEEN, HIDDEN = (0, 1, 3, 4, 6), (2, 5)
PAPER, STRICT = LossTerms(form="paper"), LossTerms(unlabelled=False)


def given(trusty: bool = True) -> tuple[MaskLogits, Tensor, Tensor, Tensor]:
    """Logits of five seen classes on a coarse grid, labels, where classes are unseen, and the logits as one leaf.

    The third image shows no seen class; a fifth of all pixels has no label.
    """
    leaf = (4 * drawn("tagclip loss logits", (3, 6, 4, 4))).requires_grad_()
    published = ((drawn("tagclip loss labels", (3, 6, 6)) / 12**0.5 + 0.5) * 9).long()
    published[2] = torch.where((published[2] == 2) | (published[2] == 5), published[2], 8)
    rows = torch.full((9,), IGNORE)
    rows[list(SEEN)], rows[list(HIDDEN)] = torch.arange(5), UNSEEN
    labels = rows[published].repeat_interleave(4, 1).repeat_interleave(4, 2)
    logits = MaskLogits(leaf[:, :-1], leaf[:, -1] if trusty else None)
    return logits, labels, labels == UNSEEN, leaf


@pytest.mark.parametrize(("model", "terms"), [("tagclip", LossTerms()), ("zegclip", LossTerms(masks=100.0))])
def test_losses_and_gradients_are_those_of_the_published_code(model, terms):
    known = fixture("tagclip_losses.json")
    logits, labels, unseen, leaf = given(trusty=model == "tagclip")
    found = tagclip_losses(logits, labels, unseen, terms)
    names = {"masks": "loss_mask", "dice": "loss_dice", "trusty": "loss_disc"}
    assert {names[name]: value.item() for name, value in found.items()} == pytest.approx(known[model], rel=1e-6)
    [gradient] = torch.autograd.grad(sum(found.values()), leaf)
    expected = torch.tensor(known[f"{model} gradient"])
    torch.testing.assert_close(gradient.flatten()[::7], expected, rtol=1e-5, atol=1e-8)


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    return F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)


def dice(masks: Tensor, truth: Tensor) -> Tensor:
    """Of masks and truth with pixels last; summed."""
    return (1 - (2 * (masks * truth).sum(-1) + 1) / (masks.sum(-1) + truth.sum(-1) + 1)).sum()


def test_the_papers_losses_are_those_of_its_formulas():
    logits, labels, unseen, _ = given()
    found = tagclip_losses(logits, labels, unseen, PAPER)
    count = sum(len(set(SEEN_ROWS) & set(each.unique().tolist())) for each in labels)
    trusted = 1 - enlarged(logits.trusty[:, None], labels)[:, 0].sigmoid()
    seen = (labels >= 0).float()
    assert found["trusty"].item() == pytest.approx(10 * dice(trusted.flatten(1), seen.flatten(1)).item() / count)
    truth = (labels[:, None] == torch.arange(5)[:, None, None]).float()
    crossed = F.binary_cross_entropy(enlarged(logits.classes, labels).sigmoid(), truth, reduction="none")
    assert found["classes"].item() == pytest.approx(crossed.mean((2, 3)).sum().item() / count, rel=1e-5)
    as_published = tagclip_losses(logits, labels, unseen, LossTerms())
    assert "classes" not in as_published
    for name in ("masks", "dice"):
        assert torch.equal(found[name], as_published[name])


SEEN_ROWS = range(5)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_classes_that_count_as_unseen_are_no_seen_ones_though_they_have_labels(form):
    """As in self-training: to the trusty map it is the same whether such pixels have a label or none."""
    logits, labels, unseen, _ = given()
    labelled = torch.where(unseen, 3, labels)
    count = sum(len(set(SEEN_ROWS) & set(each.unique().tolist())) for each in labels)
    more = sum(len(set(SEEN_ROWS) & set(each.unique().tolist())) for each in labelled)
    [without, with_labels] = (
        tagclip_losses(logits, each, unseen, LossTerms(form))["trusty"] for each in (labels, labelled)
    )
    assert (with_labels * more).item() == pytest.approx((without * count).item())
    assert more == count + 1, "the third image, which showed no seen class"


@pytest.mark.parametrize("form", ["code", "paper"])
def test_unlabelled_pixels_teach_absence_or_nothing(form):
    logits, labels, unseen, leaf = given()
    labels[:, :, 12:], unseen[:, :, 12:] = IGNORE, False
    taught, masked = (
        torch.autograd.grad(
            sum(tagclip_losses(logits, labels, unseen, LossTerms(form, unlabelled=way)).values()), leaf
        )[0]
        for way in (True, False)
    )
    beyond = taught[..., 3]  # pixels from column 15 on, at least, depend on this column of logits alone
    assert (beyond[:, :5] > 0).all(), "every class is pushed down there"
    assert (masked[..., 3] == 0).all()
    assert (masked[:2, :, :, :2] != 0).all()


def test_strict_losses_are_means_over_what_is_labelled():
    logits, labels, unseen, _ = given()
    found = tagclip_losses(logits, labels, unseen, STRICT)
    expected = {"masks": 0.0, "dice": 0.0, "trusty": 0.0}
    count = 0
    for classes, trusty, own, new in zip(logits.classes, logits.trusty, labels, unseen, strict=True):
        kept = own != IGNORE
        masks = enlarged(classes[None], own[None])[0][:, kept]
        truth = (own[kept] == torch.arange(5)[:, None]).float()
        there = truth.any(1)
        count += there.sum().item()
        probability = masks.sigmoid()
        right = probability * truth + (1 - probability) * (1 - truth)
        balance = 0.25 * truth + 0.75 * (1 - truth)
        expected["masks"] += 20 * (-balance * (1 - right) ** 2 * right.log()).mean(1).sum()
        expected["dice"] += dice(probability[there], truth[there])
        found_new, truly = enlarged(trusty[None, None], own[None])[0, 0][kept].sigmoid(), new[kept].float()
        right = found_new * truly + (1 - found_new) * (1 - truly)
        expected["trusty"] += 10 * (-(0.25 * truly + 0.75 * (1 - truly)) * (1 - right) ** 2 * right.log()).mean()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item() / count, rel=1e-4)


@pytest.mark.parametrize("terms", [LossTerms(), PAPER, STRICT])
@pytest.mark.parametrize("label", [IGNORE, BACKGROUND, UNSEEN])
def test_a_batch_that_shows_no_class_gives_finite_losses(terms, label):
    logits, labels, _, leaf = given()
    labels = torch.full_like(labels, label)
    found = tagclip_losses(logits, labels, labels == UNSEEN, terms)
    assert found["dice"].item() == 0
    sum(found.values()).backward()
    assert leaf.grad.isfinite().all()


def test_losses_are_divided_by_the_mean_number_of_classes_over_processes(monkeypatch):
    logits, labels, unseen, _ = given()
    alone = tagclip_losses(logits, labels, unseen, LossTerms())
    given_up = []
    monkeypatch.setattr(module, "reduce", lambda count, how: given_up.append((count.item(), how)) or count / 2)
    spread = tagclip_losses(logits, labels, unseen, LossTerms())
    assert given_up == [(10.0, "mean")], "five seen classes in each of two images"
    assert {name: value.item() for name, value in spread.items()} == pytest.approx(
        {name: 2 * value.item() for name, value in alone.items()}
    )


def test_nothing_of_full_resolution_is_kept_for_the_backward_pass():
    logits, labels, unseen, _ = given()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        sum(tagclip_losses(logits, labels, unseen, LossTerms()).values())
    assert 0 < max(kept) <= labels[0].numel()


def test_losses_are_computed_in_full_precision():
    logits, labels, unseen, _ = given()
    short = MaskLogits(logits.classes.bfloat16(), logits.trusty.bfloat16())
    plain = tagclip_losses(short, labels, unseen, LossTerms())
    with torch.autocast("cpu", torch.bfloat16):
        found = tagclip_losses(short, labels, unseen, LossTerms())
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert {name: value.item() for name, value in found.items()} == {n: value.item() for n, value in plain.items()}
