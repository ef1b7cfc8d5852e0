import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from eval.metrics import GROUND_TRUTH, UNION, Confusion


def confusion(classes: int, *images: tuple[list, list]) -> Confusion:
    counted = Confusion(classes)
    for labels, prediction in images:
        counted.add(np.array(labels), np.array(prediction))
    return counted


@st.composite
def label_maps(draw):
    """Classes, labels with ignored pixels, and a prediction that leaves the vocabulary on both sides."""
    classes, pixels = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    present = random.integers(0, classes, draw(st.integers(1, classes)))  # some classes stay empty
    labels = np.where(random.random(pixels) < 0.2, -1, random.choice(present, pixels)).astype(np.int32)
    prediction = random.integers(-2, classes + 2, pixels).astype(np.int32)
    prediction = np.where(random.random(pixels) < 0.5, labels, prediction)
    return classes, labels, prediction


@given(label_maps())
def test_scores_agree_with_scikit_learn(case):
    classes, labels, prediction = case
    counted = confusion(classes, (labels, prediction))
    truth, given = labels[labels >= 0], prediction[labels >= 0]
    given = np.where((given < 0) | (given >= classes), classes, given)
    if not len(truth):
        assert counted.counts.sum() == 0
        return
    reference = sklearn.confusion_matrix(truth, given, labels=range(classes + 1))
    np.testing.assert_array_equal(counted.counts, reference[:classes])
    scores = counted.scores()
    present, met = np.isin(range(classes), truth), np.isin(range(classes), [*truth, *given])

    iou = sklearn.jaccard_score(truth, given, labels=range(classes), average=None, zero_division=0)
    np.testing.assert_allclose(scores.iou[met], iou[met])
    assert np.isnan(scores.iou[~met]).all()
    assert scores.means[GROUND_TRUTH].miou == pytest.approx(iou[present].mean())
    assert scores.means[UNION].miou == pytest.approx(iou[present].sum() / met.sum())

    accuracy = sklearn.recall_score(truth, given, labels=np.flatnonzero(present), average=None, zero_division=0)
    np.testing.assert_allclose(scores.accuracy[present], accuracy)
    assert np.isnan(scores.accuracy[~present]).all()
    assert scores.mean_class_accuracy == pytest.approx(accuracy.mean())
    assert scores.pixel_accuracy == pytest.approx(sklearn.accuracy_score(truth, given))
    weighted = sklearn.jaccard_score(truth, given, labels=range(classes), average="weighted", zero_division=0)
    assert scores.frequency_weighted_iou == pytest.approx(weighted)
    np.testing.assert_array_equal(scores.pixels, np.bincount(truth, minlength=classes))
    np.testing.assert_array_equal(scores.predicted, np.bincount(given, minlength=classes + 1)[:classes])


def test_the_two_rules_part_on_a_class_that_is_only_predicted():
    # Class 0: IoU 2/4. Class 1 is right. Class 2 is predicted, but not there. Class 3 is nowhere.
    scores = confusion(4, ([0, 0, 0, 0, 1, 1], [0, 0, 2, -1, 1, 1])).scores()
    assert scores.means[GROUND_TRUTH].miou == (0.5 + 1) / 2
    assert scores.means[UNION].miou == (0.5 + 1 + 0) / 3
    assert scores.iou[2] == 0
    assert np.isnan(scores.iou[3])


def test_seen_unseen_and_their_harmonic_mean():
    counted = confusion(4, ([0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 1, 3, 2, -1, -1, -1]))
    means = counted.scores(seen=(0, 1), unseen=(2, 3)).means
    assert means[GROUND_TRUTH].seen == means[UNION].seen == 0.75
    assert means[GROUND_TRUTH].unseen == 0.25
    assert means[UNION].unseen == 0.125
    assert means[GROUND_TRUTH].harmonic == 2 * 0.75 * 0.25 / 1
    assert confusion(2, ([0, 1], [1, 0])).scores((0,), (1,)).means[UNION].harmonic == 0
    assert np.isnan(counted.scores().means[UNION].harmonic)


@given(st.lists(label_maps(), min_size=2, max_size=4))
def test_counts_merge_in_any_order_and_survive_being_made_sparse(cases):
    images = [(labels, prediction) for _, labels, prediction in cases]
    together = confusion(6, *images)
    merged, rebuilt = Confusion(6), Confusion(6)
    for image in reversed(images):
        merged.merge(confusion(6, image))
        rebuilt.add_sparse(confusion(6, image).sparse())
    np.testing.assert_array_equal(merged.counts, together.counts)
    np.testing.assert_array_equal(rebuilt.counts, together.counts)


def test_large_images_are_counted_in_bands(monkeypatch, random):
    labels, prediction = random.integers(-1, 3, (2, 12, 17))
    whole = confusion(3, (labels, prediction)).counts
    monkeypatch.setattr("eval.metrics._BAND", 7)
    assert whole.sum() == (labels >= 0).sum()
    np.testing.assert_array_equal(confusion(3, (labels, prediction)).counts, whole)


def test_counts_are_exact_where_floats_are_not():
    counted = Confusion(1)
    for _ in range(2):
        counted.add_sparse([[0], [2**53 + 1]])
    assert counted.counts[0, 0] == 2**54 + 2


@pytest.mark.filterwarnings("error")
def test_nothing_counted_is_nan_and_no_warning():
    scores = confusion(2, ([-1, -1], [0, 5])).scores((0,), (1,))
    assert np.isnan([scores.pixel_accuracy, scores.mean_class_accuracy, scores.frequency_weighted_iou]).all()
    assert np.isnan([scores.means[UNION].miou, scores.means[GROUND_TRUTH].harmonic]).all()


def test_wrong_maps_are_refused():
    with pytest.raises(ValueError, match="labels are"):
        confusion(2, ([0, 1], [0]))
    with pytest.raises(ValueError, match="label 2 is beyond the 2 classes"):
        confusion(2, ([0, 2], [0, 0]))
    with pytest.raises(ValueError, match="shape"):
        Confusion(2).merge(Confusion(3))
