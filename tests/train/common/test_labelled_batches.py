import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.datasets.base import IGNORE, DatasetError
from tests.helpers.mini_data import HELD_OUT, KEYS, shrunk, two_halves, write_labelled_set
from train.common import labelled_batches as sets
from train.common.augmentation import AugmentationSettings
from train.common.sampling import StepGenerator

VIEWS = AugmentationSettings(side=64, shortest=(64,), longest=128)
ANIMALS = ["cat", "background", "dog"]
STREET = ["road", "sky"]


@pytest.fixture
def folder(tmp_path) -> Path:
    masks = {KEYS[0]: two_halves(0, 1), KEYS[1]: two_halves(2, 255), HELD_OUT[0]: two_halves(0, 2)}
    write_labelled_set(tmp_path / "animals_train", ANIMALS, masks)
    write_labelled_set(tmp_path / "street_train", STREET, {KEYS[0]: two_halves(0, 1)})
    return tmp_path


def turn(step: int = 0, process: int = 0) -> StepGenerator:
    return StepGenerator(0, step, process, 2)


def test_every_set_has_its_own_words_and_held_out_photos_are_left_out(folder):
    found = sets.find_labelled_sets(folder, [])
    assert [(source.name, sets.training_class_names(source)) for source in found] == [
        ("animals_train", ["cat", "dog"]),
        ("street_train", STREET),
    ]
    assert found[0].keys == sorted(KEYS[:2])


def test_a_batch_has_views_of_every_set_with_rows_of_taught_words(folder):
    draw = sets.LabelledBatches(sets.find_labelled_sets(folder, []), VIEWS, 8)
    seen = {0: set(), 1: set()}
    for step in range(6):
        batch = draw(turn(step))
        assert (batch["images"].shape, batch["images"].dtype) == ((8, 3, 64, 64), torch.uint8)
        assert (batch["labels"].shape, batch["labels"].dtype) == ((8, 64, 64), torch.int64)
        for labels, number in zip(batch["labels"], batch["sets"], strict=True):
            seen[number] |= set(labels.unique().tolist())
    assert seen == {0: {sets.BACKGROUND, IGNORE, 0, 1}, 1: {0, 1}}, "background and what is ignored is in no segment"


def test_a_batch_of_one_set_has_photos_of_no_other(folder):
    draw = sets.LabelledBatches(sets.find_labelled_sets(folder, []), VIEWS, 4, mixed=False)
    batches = [draw(turn(step)) for step in range(8)]
    assert {len(set(batch["sets"])) for batch in batches} == {1}
    assert {batch["sets"][0] for batch in batches} == {0, 1}, "but every set has its turn"
    assert {len(batch["sets"]) for batch in batches} == {len(batch["images"]) for batch in batches} == {4}


def test_a_batch_is_a_function_of_its_turn(folder):
    draw = sets.LabelledBatches(sets.find_labelled_sets(folder, []), VIEWS, 4)
    one, again, later, other = draw(turn()), draw(turn()), draw(turn(1)), draw(turn(0, 1))
    assert torch.equal(one["images"], again["images"])
    for batch in (later, other):
        assert not torch.equal(one["images"], batch["images"])


def coco(root: Path, labels: np.ndarray) -> None:
    for part, suffix in (("train2017", "jpg"), ("stuffthingmaps_detectron2/train2017", "png")):
        (root / "coco" / part).mkdir(parents=True)
        picture = Image.fromarray(labels) if suffix == "png" else shrunk("pizza", labels.shape[::-1])
        picture.save(root / "coco" / part / f"{HELD_OUT[0]}.{suffix}")


def test_coco_stuff_is_read_as_detectron2_keeps_it(tmp_path):
    coco(tmp_path, two_halves(170, 255))
    [source] = sets.find_labelled_sets(tmp_path, ["coco_stuff_171_train"])
    assert len(sets.training_class_names(source)) == 171
    assert source.keys == [HELD_OUT[0]], "its validation split is what is held out"
    batch = sets.LabelledBatches([source], VIEWS, 4)(turn())
    assert set(batch["labels"].unique().tolist()) <= {-1, 170}


@pytest.mark.parametrize(
    ("name", "labels", "listed"),
    [
        ("voc_20_train", "SegmentationClass", "train"),
        ("voc_20_train", "SegmentationClassAug", "train"),
        ("voc_20_train_aug", "SegmentationClassAug", "trainaug"),
    ],
)
def test_voc_is_read_as_its_devkit_keeps_it_and_its_background_is_no_class(tmp_path, name, labels, listed):
    home = tmp_path / "VOCdevkit/VOC2012"
    for part in ("JPEGImages", labels, "ImageSets/Segmentation"):
        (home / part).mkdir(parents=True)
    for key in ("a", "b"):
        shrunk("pizza").save(home / "JPEGImages" / f"{key}.jpg")
        Image.fromarray(two_halves(20, 0)).save(home / labels / f"{key}.png")
    (home / "ImageSets/Segmentation" / f"{listed}.txt").write_text("b\n")
    [source] = sets.find_labelled_sets(tmp_path, [name])
    names = sets.training_class_names(source)
    assert (len(names), names[0], names[-1]) == (20, "aeroplane", "tvmonitor")
    assert source.keys == ["b"]
    batch = sets.LabelledBatches([source], VIEWS, 8)(turn())
    assert set(batch["labels"].unique().tolist()) == {19, sets.BACKGROUND}


def test_a_split_that_is_not_there_is_told(folder):
    with pytest.raises(DatasetError, match=r"coco_stuff_171_train is not under .*train2017/\*\.jpg \(absent\)"):
        sets.find_labelled_sets(folder, ["coco_stuff_171_train"])


def test_a_folder_without_masks_is_told(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no folder NAME_train with images/, masks/ and classes\.json"):
        sets.find_labelled_sets(tmp_path, [])


@pytest.mark.parametrize(
    ("names", "value", "message"),
    [
        (["null"], 0, r"^animals_train has no class with a name to learn\.$"),
        (["cat", "background"], 1, r"^No mask of animals_train shows a class with a name\.$"),
        (["cat"], 255, r"^No mask of animals_train shows a class with a name\.$"),
        (["cat"], 7, r"animals_train/masks/\w+\.png holds the value 7, which stands for no class"),
    ],
)
def test_sets_from_which_nothing_can_be_learnt_are_told(tmp_path, names, value, message):
    write_labelled_set(tmp_path / "animals_train", names, {key: two_halves(value, value) for key in KEYS[:2]})
    with pytest.raises(DatasetError, match=message):
        sets.find_labelled_sets(tmp_path, [])


def test_missing_masks_and_other_sizes_are_told(folder):
    draw = sets.LabelledBatches(sets.find_labelled_sets(folder, []), VIEWS, 16)
    mask = folder / "animals_train/masks" / f"{KEYS[1]}.png"
    mask.unlink()
    with pytest.raises(DatasetError, match=rf"^There is no label file {mask}\.$"):
        draw(turn())
    Image.fromarray(two_halves(0, 1, (50, 60))).save(mask)
    with pytest.raises(DatasetError, match=r"differ in size: \(72, 96\), \(50, 60\)\.$"):
        draw(turn())


def test_a_photo_that_shows_nothing_gives_a_view_without_segments(folder):
    (folder / "street_train/classes.json").write_text(json.dumps(["road", "background"]))
    Image.fromarray(two_halves(1, 1)).save(folder / "street_train/masks" / f"{KEYS[1]}.png")
    shrunk("pizza").save(folder / "street_train/images" / f"{KEYS[1]}.jpg")
    draw = sets.LabelledBatches(sets.find_labelled_sets(folder, [])[1:], VIEWS, 8)
    assert any((labels < 0).all() for step in range(3) for labels in draw(turn(step))["labels"])
