"""Pseudo-unseen classes, labels as rows of the prompted classes, and pseudo-labels."""

import pytest
import torch
from torch import Tensor

from eval.datasets.base import IGNORE
from train.common.labelled_batches import BACKGROUND
from train.tagclip.losses import UNSEEN
from train.tagclip.pseudo_labels import draw_pseudo_unseen, pseudo_label, relabel

SEEN = torch.tensor([True, False, True, False, False])


def test_a_quarter_of_the_classes_stand_in():
    labels = torch.cat([torch.arange(8).repeat(3), torch.tensor([IGNORE, BACKGROUND])])
    torch.manual_seed(0)
    drawn = [set(draw_pseudo_unseen(labels).tolist()) for _ in range(40)]
    assert {len(each) for each in drawn} == {2}
    assert set.union(*drawn) == set(range(8)), "every class has its turn"


@pytest.mark.parametrize(
    ("classes", "number"), [([3], 0), ([], 0), ([1, 4], 1), ([0, 1, 2, 3, 4], 1), (list(range(20)), 5)]
)
def test_some_class_always_stays(classes, number):
    labels = torch.tensor([*classes, IGNORE, BACKGROUND])
    found = draw_pseudo_unseen(labels)
    assert len(found) == len(set(found.tolist())) == number
    assert set(found.tolist()) <= set(classes)


def test_stand_ins_follow_torchs_generator():
    def drawn(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return draw_pseudo_unseen(torch.arange(40)).tolist()

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_labels_become_rows_of_what_is_asked_for():
    labels = torch.tensor([[0, 1, 2], [3, IGNORE, BACKGROUND]])
    assert relabel(labels, torch.tensor([0, 2]), 4).tolist() == [[0, UNSEEN, 1], [UNSEEN, IGNORE, BACKGROUND]]
    assert torch.equal(relabel(labels, torch.arange(4), 4), labels)


def logits(*winners: int) -> Tensor:
    """One image of 1 x n places: at each the class of this number has probability 0.9, the unseen class 3 has 0.5 and
    all others less than 0.1."""
    found = torch.full((1, 5, 1, len(winners)), -4.0)
    found[0, 3] = 0.0
    for place, winner in enumerate(winners):
        found[0, winner, 0, place] = 2.2
    return found


def test_pixels_of_unseen_classes_get_the_best_unseen_class():
    labels = torch.tensor([[[1, 3, 4, 1, 0, 2, IGNORE, BACKGROUND]]])
    found = pseudo_label(logits(4, 1, 0, 2, 4, 4, 4, 4), labels, SEEN, strict=False)
    # Seen classes, though better, do not count; what has a seen label, none, or is background keeps it.
    assert found.tolist() == [[[4, 1, 3, 3, 0, 2, IGNORE, BACKGROUND]]]


def test_what_is_made_depends_on_where_unseen_classes_are_and_not_on_which():
    made = [
        pseudo_label(logits(4, 1, 0, 2), torch.tensor([[own]]), SEEN, strict=False)
        for own in ([1, 1, 3, 0], [4, 3, 1, 0])
    ]
    assert torch.equal(*made)


def test_without_their_place_only_what_wins_among_all_is_made():
    labels = torch.tensor([[[1, 1, 1, 1, 0, IGNORE]]])  # 1 marks all that has no label (`class_split.hide_unseen`)
    found = pseudo_label(logits(4, 1, 0, 2, 4, 4), labels, SEEN, strict=True)
    assert found.tolist() == [[[4, 1, IGNORE, IGNORE, 0, IGNORE]]]


def test_seen_classes_are_penalised_as_at_inference():
    close = torch.logit(torch.tensor([0.58, 0.0, 0.0, 0.5, 0.0])).clamp(-9, 9)[None, :, None, None]
    far = torch.logit(torch.tensor([0.62, 0.0, 0.0, 0.5, 0.0])).clamp(-9, 9)[None, :, None, None]
    labels = torch.tensor([[[1]]])
    assert [pseudo_label(each, labels, SEEN, strict=True).item() for each in (close, far)] == [3, IGNORE]


def test_labels_are_made_at_their_own_resolution_and_carry_no_gradient():
    coarse = logits(4, 1).requires_grad_()
    found = pseudo_label(coarse, torch.ones(1, 3, 8, dtype=torch.int64), SEEN, strict=False)
    assert found.shape == (1, 3, 8)
    assert found[0, :, :3].unique().tolist() == [4]
    assert found[0, :, 5:].unique().tolist() == [1]
    assert not found.requires_grad


def test_a_set_without_unseen_classes_keeps_its_labels():
    labels = torch.tensor([[[0, 1, IGNORE]]])
    assert torch.equal(pseudo_label(logits(4, 1, 0), labels, torch.ones(5, dtype=torch.bool), strict=False), labels)
