import json

import numpy as np
import pytest
from PIL import Image

from eval.datasets.base import IGNORE, DatasetError
from ovseg_demo.result import resize_labels
from tests.helpers.mini_data import HELD_OUT, KEYS, VOC, two_halves, write_described_set, write_labelled_set
from train.common import image_sets
from train.mini.lexicon import drop_restricted


def one(tmp_path, **arguments):
    [found], _ = image_sets.find_sets(tmp_path, **arguments)
    return found


def test_every_folder_is_used_for_all_that_it_has(tmp_path):
    write_labelled_set(tmp_path / "b_train", ["cat", "dog"], {KEYS[0]: two_halves(0, 1)})
    write_described_set(tmp_path / "b_train", "captions", {"x": ["a cat"]})
    write_described_set(tmp_path / "a_train", "captions", {"y": ["one", "two"], "none": []})
    write_described_set(tmp_path / "a_train", "tags", {"z": ["sea", "sky"]})
    write_labelled_set(tmp_path / "b_dev", ["cat"], {KEYS[0]: two_halves(0, 0)})
    masks, texts = image_sets.find_sets(tmp_path)
    assert [source.name for source in masks] == ["b_train"]
    assert [(s.name, s.tags, s.texts) for s in texts] == [
        ("a_train", False, (("one", "two"),)),
        ("a_train-tags", True, (("sea", "sky"),)),
        ("b_train-captions", False, (("a cat",),)),
    ]
    assert texts[0].photos == (tmp_path / "a_train/images/y.jpg",)


def test_labelled_photos_that_are_held_out_are_left_out_before_the_limit_counts(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["cat"], dict.fromkeys((*KEYS[:5], *HELD_OUT[:3]), two_halves(0, 0)))
    assert one(tmp_path).keys == sorted(KEYS[:5])
    assert one(tmp_path, limit=2).keys == sorted(KEYS[:5])[:2]


def test_texts_of_photos_that_are_held_out_are_left_out_where_there_are_masks(tmp_path):
    texts = {key: ["a cat"] for key in (*KEYS[:3], *HELD_OUT[:3])}
    write_labelled_set(tmp_path / "a_train", ["cat"], {KEYS[0]: two_halves(0, 0)})
    for folder in ("a_train", "b_train"):
        for kind in ("captions", "tags"):
            write_described_set(tmp_path / folder, kind, texts)
    found = {source.name: {path.stem for path in source.photos} for source in image_sets.find_sets(tmp_path)[1]}
    assert found == {
        "a_train-captions": set(KEYS[:3]),
        "a_train-tags": set(KEYS[:3]),
        "b_train": set(texts),
        "b_train-tags": set(texts),
    }
    [limited] = image_sets.described_sets(tmp_path, 2, ("captions",))[:1]
    assert [path.stem for path in limited.photos] == sorted(KEYS[:3])[:2]


def test_sets_without_photos_to_learn_from_are_left_out(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["cat"], {HELD_OUT[0]: two_halves(0, 0)})
    write_labelled_set(tmp_path / "b_train", ["cat"], {KEYS[0]: two_halves(0, 0)})
    write_described_set(tmp_path / "c_train", "captions", {})
    masks, texts = image_sets.find_sets(tmp_path)
    assert [source.name for source in masks] == ["b_train"]
    assert texts == []


def test_background_is_never_taught(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["null", "shoes"], {KEYS[0]: two_halves(0, 1)})
    assert one(tmp_path).training_classes == (False, True)


def test_labels_follow_a_photo_that_is_made_smaller(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["cat", "dog"], {KEYS[0]: two_halves(0, 1, (40, 2048))})
    source = one(tmp_path)
    pixels, labels = source.load(source.dataset.samples[0])
    assert pixels.shape == (20, 1024, 3)
    assert labels.shape == (20, 1024)
    assert (labels == np.arange(1024) // 512).all()


def test_resizing_repeats_or_skips_labels():
    labels = np.array([[0, 1, 2], [3, 4, IGNORE]], np.int32)
    assert np.array_equal(resize_labels(labels, (4, 6)), labels.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(resize_labels(resize_labels(labels, (6, 9)), (2, 3)), labels)


def test_a_restricted_set_shows_nothing_that_is_kept_from_it(tmp_path):
    cat, sofa, train = (VOC.index(name) for name in ("cat", "sofa", "train"))
    kept, shows_sofa, shows_train, empty = KEYS[:4]
    masks = {
        kept: two_halves(cat, 20),
        shows_sofa: two_halves(cat, sofa),
        shows_train: two_halves(train, 20),
        empty: two_halves(20, 20),
    }
    write_labelled_set(tmp_path / "voc_train", VOC, masks)
    write_labelled_set(tmp_path / "coco_train", ["cat", "couch", "train", "snow"], {kept: two_halves(1, 0)})
    coco, voc = (drop_restricted(source) for source in image_sets.find_sets(tmp_path)[0])
    assert voc.keys == sorted([kept, empty])
    untaught = {"pottedplant", "sheep", "sofa", "train", "tvmonitor", "background"}
    assert {name for name, trained in zip(voc.names, voc.training_classes, strict=True) if not trained} == untaught
    assert coco.keys == [kept]
    assert coco.training_classes == (True, False, False, False)


def test_a_folder_without_labelled_sets_is_an_error_of_one_line(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(DatasetError, match=r"^\S+ holds no folder NAME_train with [^\n]+$"):
            image_sets.find_sets(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b'["a"]', "does not hold lists of texts"),
        (b'{"a": "one text"}', "does not hold lists of texts"),
        (b'{"a": [3]}', "does not hold lists of texts"),
        (b'{"a": [" "]}', "does not hold lists of texts"),
    ],
)
def test_broken_captions_are_told_in_one_line(tmp_path, content, told):
    write_labelled_set(tmp_path / "a_train", ["cat"], {KEYS[0]: two_halves(0, 0)})
    (tmp_path / "a_train/captions.json").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"^\S+a_train/captions\.json {told}[^\n]*$"):
        image_sets.find_sets(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda folder, key: (folder / f"images/{key}.jpg").write_bytes(b"no photo"),
            r"The photo \S+jpg cannot be used",
        ),
        (lambda folder, key: (folder / f"images/{key}.jpg").unlink(), r"The photo \S+jpg cannot be used: There is no"),
        (lambda folder, key: (folder / f"masks/{key}.png").write_bytes(b"no mask"), r"label file \S+png is corrupt"),
        (lambda folder, key: (folder / f"masks/{key}.png").unlink(), r"There is no label file \S+png"),
        (
            lambda folder, key: Image.fromarray(two_halves(0, 7)).save(folder / f"masks/{key}.png"),
            r"png holds the value 7",
        ),
        (lambda folder, key: Image.new("L", (3, 2)).save(folder / f"masks/{key}.png"), r"differ in size: \(72, 96\)"),
    ],
)
def test_a_photo_or_mask_that_cannot_be_used_is_named(tmp_path, change, told):
    write_labelled_set(tmp_path / "a_train", ["cat"], dict.fromkeys(KEYS[:2], two_halves(0, 0)))
    change(tmp_path / "a_train", KEYS[0])
    source = one(tmp_path)
    sample = next(sample for sample in source.dataset if sample.key == KEYS[0])
    with pytest.raises(DatasetError, match=told) as raised:
        source.load(sample)
    assert "\n" not in str(raised.value)


def test_classes_that_are_no_list_are_told(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["cat"], {KEYS[0]: two_halves(0, 0)})
    (tmp_path / "a_train/classes.json").write_text(json.dumps({"0": "cat"}))
    with pytest.raises(DatasetError, match=r"classes\.json is not a list of names"):
        image_sets.find_sets(tmp_path)
