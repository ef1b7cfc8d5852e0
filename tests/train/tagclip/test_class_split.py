"""Seen and unseen classes by name, and what is left of labels that the strict protocol hides."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.mini_data import HELD_OUT, KEYS, two_halves, write_labelled_set
from train.common import labelled_batches as sets
from train.common.augmentation import AugmentationSettings
from train.common.run_folder import TrainingError
from train.common.sampling import StepGenerator
from train.tagclip.class_split import hide_unseen, seen_classes

VIEWS = AugmentationSettings(side=64, shortest=(48, 96), longest=128, largest_share=0.75)
ANIMALS = ["cat", "background", "Potted Plant", "sheep", "dog"]


@pytest.fixture
def folder(tmp_path) -> Path:
    masks = {
        KEYS[0]: two_halves(0, 3),
        KEYS[1]: two_halves(2, 255),
        KEYS[2]: two_halves(4, 1),
        HELD_OUT[0]: two_halves(0, 2),
    }
    write_labelled_set(tmp_path / "animals_train", ANIMALS, masks)
    write_labelled_set(tmp_path / "street_train", ["road", "sky"], {KEYS[0]: two_halves(0, 1)})
    return tmp_path


def changed(folder: Path, table: dict[int, int]) -> None:
    """Store other values for classes in all masks of animals_train."""
    for path in (folder / "animals_train/masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.vectorize(lambda value: table.get(value, value), otypes=[np.uint8])(mask)).save(path)


def batches(folder: Path, transductive: bool) -> list[dict[str, torch.Tensor]]:
    found = sets.find_labelled_sets(folder, [])
    seen = seen_classes(found, ["pottedplant", "sheep"], all_there=True)
    found = [hide_unseen(source, flags, transductive) for source, flags in zip(found, seen, strict=True)]
    draw = sets.LabelledBatches(found[:1], VIEWS, 4, mixed=False)
    return [draw(StepGenerator(0, step, 0, 1)) for step in range(8)]


def test_classes_are_unseen_by_their_words_however_they_are_spelt(folder):
    found = sets.find_labelled_sets(folder, [])
    assert seen_classes(found, ["pottedplant", "SHEEP", "tvmonitor"], all_there=False) == [
        (True, False, False, True),
        (True, True),
    ]
    assert seen_classes(found, [], all_there=True) == [(True,) * 4, (True,) * 2]


def test_words_that_no_set_has_are_told(folder):
    with pytest.raises(TrainingError, match=r"^No set has a class of the unseen ones \(cow, sofa\); name others with"):
        seen_classes(sets.find_labelled_sets(folder, []), ["cow", "sofa"], all_there=False)


def test_a_word_that_no_set_has_is_told_where_all_must_be_there(folder):
    """Misspelt, its class would be taught as a seen one."""
    found = sets.find_labelled_sets(folder, [])
    assert seen_classes(found, ["sheep", "shepe"], all_there=False)[0] == (True, True, False, True)
    with pytest.raises(TrainingError, match=r"^No set has a class of the name shepe, which is to be unseen\.$"):
        seen_classes(found, ["sheep", "shepe"], all_there=True)


def test_sets_that_show_only_unseen_classes_are_told(folder):
    with pytest.raises(TrainingError, match=r"^No mask of street_train shows a seen class\.$"):
        seen_classes(sets.find_labelled_sets(folder, []), ["road", "sky"], all_there=True)
    with pytest.raises(TrainingError, match=r"^No mask of animals_train shows a seen class\.$"):
        seen_classes(sets.find_labelled_sets(folder, []), ["cat", "dog", "sheep", "potted plant"], all_there=True)


def test_hidden_labels_are_as_if_nobody_had_labelled_them(folder):
    seen = {label for batch in batches(folder, transductive=False) for label in batch["labels"].unique().tolist()}
    assert seen == {0, 3, -1}, "cat, dog, no label"


def test_for_self_training_whatever_has_no_label_gets_that_of_an_unseen_class(folder):
    drawn = batches(folder, transductive=True)
    inside = {label for batch in drawn for label in batch["labels"].unique().tolist()}
    assert inside == {0, 1, 3, -1}, "-1 is what fills a view up"
    filled = [batch["images"].movedim(1, -1)[batch["labels"] == -1] for batch in drawn]
    assert torch.cat(filled).unique().tolist() == [128]


@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize("table", [{2: 255, 3: 255}, {2: 3, 3: 2}, {255: 3}, {2: 1, 3: 1}])
def test_batches_do_not_depend_on_where_unseen_classes_are(folder, transductive, table):
    before = batches(folder, transductive)
    changed(folder, table)
    for one, other in zip(before, batches(folder, transductive), strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["labels"], other["labels"])


def test_labels_of_seen_classes_are_read(folder):
    before = batches(folder, transductive=False)
    changed(folder, {0: 4})
    after = batches(folder, transductive=False)
    assert not all(torch.equal(one["labels"], other["labels"]) for one, other in zip(before, after, strict=True))


def test_hidden_sets_reach_other_processes(folder):
    [source, other] = sets.find_labelled_sets(folder, [])
    made = pickle.loads(pickle.dumps(hide_unseen(source, (True, False, False, True), transductive=False)))
    decoded = made.dataset.load_labels(made.dataset.samples[0])
    assert (decoded.dtype, set(np.unique(decoded).tolist()) <= {0, 1, 4, -1}) == (np.int32, True)
    assert hide_unseen(other, (True, True), transductive=True) is other, "nothing to hide"
