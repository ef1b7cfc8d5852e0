from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eval.datasets.base import Dataset
from eval.metrics import GROUND_TRUTH, UNION, Confusion
from eval.open_iou import open_iou, text_similarities
from ovseg_demo.vocabulary import Vocabulary


def confusion(*rows: list[int]) -> Confusion:
    counted = Confusion(len(rows))
    counted.counts[:] = rows
    return counted


@st.composite
def cases(draw):
    """Counts of up to 5 classes, and symmetric similarities."""
    classes = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = random.integers(0, 9, (classes, classes + 1)) * random.integers(0, 2, (classes, classes + 1))
    similarities = random.random((classes, classes))
    similarities = (similarities + similarities.T) / 2
    np.fill_diagonal(similarities, 1)
    return confusion(*counts.tolist()), similarities


def test_a_confusion_counts_by_how_alike_the_classes_are():
    # Of 10 pixels of cup, 4 are right, 4 are given "mug", 1 "sky" and 1 nothing; sky and mug are alike in nothing.
    counted = confusion([4, 4, 1, 1], [0, 5, 0, 0], [0, 0, 0, 0])
    similarities = np.array([[1, 0.75, 0.2], [0.75, 1, 0], [0.2, 0, 1]])
    iou, means = open_iou(counted, similarities)
    # cup: 4 + 0.75 * 4 + 0.2 = 7.2 of its 10 pixels. mug: 5 of 5, and 0.25 * 4 wrongly given. sky: 0.8 wrongly given.
    np.testing.assert_allclose(iou, [7.2 / 10, 5 / (5 + 1), 0])
    assert means[GROUND_TRUTH] == pytest.approx((0.72 + 5 / 6) / 2)
    assert means[UNION] == pytest.approx((0.72 + 5 / 6) / 3)


@given(cases())
def test_with_classes_alike_to_none_it_is_the_plain_iou(case):
    counted, _ = case
    iou, means = open_iou(counted, np.eye(len(counted.counts)))
    plain = counted.scores()
    np.testing.assert_allclose(iou, plain.iou)
    for rule in (GROUND_TRUTH, UNION):
        np.testing.assert_allclose(means[rule], plain.means[rule].miou)


@given(cases())
def test_it_lies_between_the_plain_iou_and_one(case):
    counted, similarities = case
    iou, _ = open_iou(counted, similarities)
    there = counted.counts.sum(1) > 0
    assert (iou[there] >= counted.scores().iou[there] - 1e-12).all()
    assert np.nanmax(iou, initial=0) <= 1 + 1e-12


def test_where_all_classes_are_one_only_pixels_without_a_class_are_lost():
    iou, _ = open_iou(confusion([1, 5, 2], [3, 0, 1]), np.ones((2, 2)))
    np.testing.assert_allclose(iou, [6 / 8, 3 / 4])


def test_similarities_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="similarities are"):
        open_iou(Confusion(2), np.eye(3))


def test_similarities_are_of_the_closest_words_and_the_background_is_like_nothing():
    vectors = {"cup": (2, 0), "mug": (3, 4), "beaker": (1, 0), "sky": (-1, 0.5)}
    encoder = SimpleNamespace(
        name="toy", embed_texts=lambda words: torch.tensor([vectors[word] for word in words]) * 1.0
    )
    words = Vocabulary(("cup", "mug", "rest", "sky"), ((), ("beaker",), (), ()))
    found = text_similarities(Dataset("tiny", (), words, lambda _: None, background=2), encoder)
    assert "toy" in found.source
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 1  # by "cup" and "beaker", where "cup" and "mug" are 0.6
    np.testing.assert_allclose(found.matrix, expected, atol=1e-7)
    alone = Vocabulary(("cup", "mug", "rest", "sky"), ((),) * 4)
    found = text_similarities(Dataset("tiny", (), alone, lambda _: None, background=2), encoder)
    assert found.matrix[0, 1] == pytest.approx(0.6)
    assert found.matrix[0, 3] == 0
