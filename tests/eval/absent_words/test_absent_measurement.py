from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from eval import runner
from eval.absent_words import measurement
from eval.absent_words.measurement import Asker, PhotoRecord, measures
from eval.absent_words.vocabularies import ABSENT, OWN_AND_ABSENT, OWN_LESS_ONE
from eval.datasets.base import Dataset
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.vocabulary import Vocabulary
from tests.helpers import evaluation_fakes as fakes

NAMES = ("cat", "dog", "rest", "sky", "cow")
PRESENCE = {"cat": 0.9, "dog": 0.4, "sky": 0.6, "cow": 0.1}


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """One photo: 100 pixels of cat, 60 of dog, 40 of the rest, and 10 that are ignored."""
    labels = np.repeat([0, 1, 2, 255], [100, 60, 40, 10]).reshape(10, 21)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    fakes.store(tmp_path, "photo", labels, np.where(labels < 255, labels, 0))
    return of_names(fakes.read(tmp_path), NAMES)


def of_names(dataset: Dataset, names: Sequence[str]) -> Dataset:
    return replace(dataset, vocabulary=Vocabulary(tuple(names), ((),) * len(names)), seen=(), unseen=())


def measured(dataset: Dataset, draws: Sequence[str | None]) -> dict[str, dict]:
    """The measures of a method that draws a word, or nothing, where the photo shows cat, dog and the rest."""
    method = fakes.Drawer(draws, PRESENCE)
    asker = Asker(method, dataset, "drawer", MethodOptions(), seed=0)
    records = []
    for sample in dataset:
        loading = Future()
        loading.set_result(runner.load_sample(dataset, sample, 1024))
        records.append(asker.measure(sample, loading))
    return measures(records, dataset)


def test_what_a_method_that_labels_everything_gets_wrong(dataset):
    found = measured(dataset, ["cat", "dog", "cat"])[OWN_AND_ABSENT]
    assert found["miou"] == pytest.approx((100 / 140 + 1 + 0) / 3)
    assert found["foreground_miou"] == 1
    assert (found["labelled"], found["background_labelled"], found["foreground_lost"]) == (1, 1, 0)
    assert (found["photos"], found["words"]) == (1, 4)
    # The method is 0.8 sure of each pixel.
    np.testing.assert_allclose(found["reliability"]["pixels"], [[200, 0.8, 0.8]])
    assert found["calibration_error"]["pixels"] == pytest.approx(0, abs=1e-6)


def test_what_a_method_that_leaves_too_much_unlabelled_gets_wrong(dataset):
    found = measured(dataset, ["cat", None, None])[OWN_AND_ABSENT]
    assert found["miou"] == pytest.approx((1 + 0 + 40 / 100) / 3)
    assert found["foreground_miou"] == 0.5
    assert (found["labelled"], found["background_labelled"]) == (0.5, 0)
    assert found["foreground_lost"] == 60 / 160
    np.testing.assert_allclose(found["reliability"]["pixels"], [[100, 0.8, 1]])


def test_presence_is_measured_over_words(dataset):
    found = measured(dataset, ["cat", None, None])
    assert found[OWN_AND_ABSENT]["presence"] == {
        "average_precision": pytest.approx((1 + 2 / 3) / 2),  # cat, sky, dog, cow
        "false_positive_rate": 0.5,
        "found": 0.5,
    }
    assert found[OWN_AND_ABSENT]["calibration_error"]["presence"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)
    assert found[ABSENT]["presence"]["false_positive_rate"] == 0.5
    assert np.isnan([found[ABSENT]["presence"][name] for name in ("average_precision", "found")]).all()


def test_with_absent_words_only_every_word_is_wrong(dataset):
    found = measured(dataset, ["sky", None, "sky"])[ABSENT]
    assert found["labelled"] == found["background_labelled"] == 140 / 200
    assert found["miou"] == 60 / 200
    assert np.isnan(found["foreground_miou"])
    assert np.isnan(found["foreground_lost"])


def test_the_word_that_is_left_out_is_background(dataset):
    found = measured(dataset, ["cat", "dog", None])[OWN_LESS_ONE]
    assert (found["miou"], found["foreground_lost"], found["words"]) == (1, 0, 3)


def test_without_a_background_the_classes_that_are_not_offered_are_unlabelled(dataset):
    """The rest is a class like the others then; of five classes three are present, and two are absent."""
    found = measured(replace(dataset, background=None), ["cat", "dog", "rest"])
    assert found[OWN_AND_ABSENT]["miou"] == found[OWN_AND_ABSENT]["labelled"] == 1
    assert np.isnan(found[OWN_AND_ABSENT]["background_labelled"])
    assert found[OWN_LESS_ONE]["miou"] == 1
    assert found[OWN_LESS_ONE]["labelled"] < 1


def test_a_photo_without_a_class_has_no_outcome(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    fakes.store(tmp_path, "photo", np.full((4, 5), 2), np.full((4, 5), 2))
    found = measured(of_names(fakes.read(tmp_path), NAMES), ["cat", "dog", None])
    assert [each["photos"] for each in found.values()] == [0, 0, 0]


def test_a_record_is_the_same_after_it_was_written(dataset):
    outcome = measurement.Outcome([1], [True], [0.5], [[0], [3]], [[1.0], [0.5], [1.0]])
    record = PhotoRecord("photo", {ABSENT: outcome})
    assert PhotoRecord.of_fields("photo", {ABSENT: vars(outcome)}) == record
