"""The calibration of the mini model, on made-up answers and on a photo."""

import numpy as np
import pytest
import torch

from eval.datasets import open_dataset
from eval.datasets.base import IGNORE
from ovseg_demo.models.base import Calibration
from ovseg_demo.proposals.base import MaskProposals
from tests.helpers import mini_data
from train.mini import calibration
from train.mini.calibration import Question

TRUTH = Calibration(word=0.8, background=0.5, offset=-1.0, presence=0.7, presence_offset=-0.4)


def answers(photos: int, generator: torch.Generator) -> list[Question]:
    """Answers whose places and photos show their classes with the probabilities of TRUTH."""
    asked = []
    for _ in range(photos):
        logits, background = (4 * torch.randn(count, 200, generator=generator) for count in (2, 3))
        best, classes = logits.max(0)
        odds = TRUTH.word * best - TRUTH.background * background.logsumexp(0) + TRUTH.offset
        shown = torch.where(torch.rand(200, generator=generator) < odds.sigmoid(), classes, 2)
        of_classes = TRUTH.word * logits - TRUTH.background * background.logsumexp(0) + TRUTH.offset
        highest = of_classes.topk(2, 1).values[:, -1]
        present = torch.rand(2, generator=generator) < (TRUTH.presence * highest + TRUTH.presence_offset).sigmoid()
        asked.append(Question(logits, background, shown, present))
    return asked


def test_the_regression_of_places_is_recovered():
    fitted = calibration.calibrate(answers(150, torch.Generator().manual_seed(0)))
    assert fitted.word == pytest.approx(TRUTH.word, rel=0.1)
    assert fitted.background == pytest.approx(TRUTH.background, rel=0.15)
    assert 0 < fitted.presence < 2 * TRUTH.presence


def test_words_do_not_matter_where_places_show_another_word():
    """A place that shows the second best of the words says nothing on whether a place shows a word at all."""
    logits = torch.tensor([[5.0, 5.0, 5.0], [1.0, 1.0, 1.0]])
    question = Question(logits, torch.zeros(1, 3), torch.tensor([0, 1, 2]), torch.tensor([True, True]))
    inputs, right = calibration._examples(question, -9.0, torch.Generator().manual_seed(0))
    assert sorted(right.tolist()) == [False, True]
    assert inputs.tolist() == [[5.0, 0.0], [5.0, 0.0]]


def test_labels_become_indices_into_the_words():
    labels = np.array([[7, 3, IGNORE], [3, 9, 7]])
    assert calibration._in_vocabulary(labels, (3, 7)).tolist() == [[1, 0, IGNORE], [0, 2, 1]]


def test_a_region_has_a_label_when_nearly_all_of_it_does():
    shown = np.array([[0, 0, 0, 0, 1, 2, IGNORE, IGNORE]])
    masks = np.zeros((4, 1, 8), bool)
    masks[0, 0, :5] = True  # four fifths are 0
    masks[1, 0, 3:5] = True
    masks[2, 0, 5] = True
    masks[3, 0, 5:] = True
    proposals = MaskProposals.from_masks(masks, np.ones(4))
    assert calibration._labels_of_regions(shown, proposals, 2).tolist() == [0, IGNORE, 2, IGNORE]


def test_held_out_photos_are_asked_for_present_and_absent_words(tmp_path):
    masks = {key: mini_data.two_halves(7, 20) for key in (mini_data.KEYS[0], *mini_data.HELD_OUT[:2])}
    mini_data.write_labelled_set(tmp_path, mini_data.VOC, masks, photo="cat_and_parakeet")
    asked = list(calibration.questions(open_dataset("folder", tmp_path), limit=1))
    assert [positions.present.sum().item() for positions, _ in asked] == [1, 0, 0]  # own and absent, less one, absent
    for positions, regions in asked:
        assert len(positions.logits) == len(regions.logits) == len(positions.present)
        assert positions.logits.shape[1] == len(positions.shown) > 100
        assert regions.logits.shape[1] == len(regions.shown)
        assert set(positions.shown.tolist()) <= {*range(len(positions.present) + 1)}
