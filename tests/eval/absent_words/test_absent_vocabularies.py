import numpy as np
import pytest

from eval.absent_words.vocabularies import ABSENT, KINDS, OWN_AND_ABSENT, OWN_LESS_ONE, PhotoClasses, draw, truth
from eval.datasets.base import IGNORE

CLASSES, BACKGROUND = 9, 8


@pytest.fixture
def labels() -> np.ndarray:
    """20 x 20 pixels: two classes in plenty, one in exactly 1 %, one in less, background, and ignored pixels."""
    flat = np.full(400, BACKGROUND)
    flat[:100], flat[100:150], flat[150:154], flat[154:157], flat[157:170] = 0, 5, 2, 3, IGNORE
    return flat.reshape(20, 20)


def test_a_class_is_present_from_one_percent_of_the_pixels_on(labels):
    assert PhotoClasses.of(labels, CLASSES, BACKGROUND) == PhotoClasses((0, 2, 5), (3,), (1, 4, 6, 7))
    assert PhotoClasses.of(labels, CLASSES, None) == PhotoClasses((0, 2, 5, 8), (3,), (1, 4, 6, 7))


@pytest.mark.parametrize("seed", range(20))
def test_each_kind_holds_what_its_name_says(labels, seed):
    classes = PhotoClasses.of(labels, CLASSES, BACKGROUND)
    drawn = draw(classes, "photo", seed)
    absent = set(drawn[ABSENT])
    assert len(absent) == 3
    assert absent < set(classes.absent)
    assert set(drawn[OWN_AND_ABSENT]) == absent | {0, 2, 5}
    left_out = set(drawn[OWN_AND_ABSENT]) - set(drawn[OWN_LESS_ONE])
    assert len(left_out) == 1
    assert left_out < {0, 2, 5}
    assert all(list(words) == sorted(words) for words in drawn.values())


def test_words_depend_on_the_photo_and_the_seed_alone(labels):
    classes = PhotoClasses.of(labels, CLASSES, BACKGROUND)
    assert draw(classes, "photo", 3) == draw(classes, "photo", 3)
    assert len({draw(classes, f"photo {n}", 0)[OWN_AND_ABSENT] for n in range(20)}) == 4
    assert len({draw(classes, "photo", n)[OWN_AND_ABSENT] for n in range(20)}) == 4
    assert draw(classes, "photo", 0)[ABSENT] == (1, 6, 7)


def test_there_are_no_more_absent_words_than_the_set_has():
    few = draw(PhotoClasses((0, 1, 2), (), (3,)), "photo", 0)
    assert (few[OWN_AND_ABSENT], len(few[OWN_LESS_ONE]), few[ABSENT]) == ((0, 1, 2, 3), 3, (3,))
    assert draw(PhotoClasses((0,), (1,), ()), "photo", 0) == {OWN_AND_ABSENT: (0,)}
    assert draw(PhotoClasses((), (1,), (0,)), "photo", 0) == {}
    assert list(few) == list(KINDS)


def test_all_that_is_not_offered_is_to_be_left_unlabelled(labels):
    classes = PhotoClasses.of(labels, CLASSES, BACKGROUND)
    right = truth(labels, classes, (0, 1, 2), BACKGROUND)
    assert right.dtype == np.int32
    expected = labels.copy()
    expected[labels == 5], expected[labels == 3] = BACKGROUND, IGNORE
    np.testing.assert_array_equal(right, expected)
