"""Benchmarks are found in every preparation's layout and read in its format."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from eval import class_names, datasets
from eval.datasets import DATASETS
from eval.datasets.base import IGNORE, DatasetError
from eval.datasets.labels import label_decoder, read_label_map, read_values, value_table
from eval.datasets.layout import find_samples
from eval.datasets.split import held_out
from ovseg_demo.errors import VocabularyError
from tests.helpers import trees

ADE = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"
VOC10 = "VOCdevkit/VOC2010"
VOC12 = "VOCdevkit/VOC2012"
CITY = "cityscapes"

ADE_PHOTO = "images/validation/{}.jpg"
VOC_PHOTO = "JPEGImages/{}.jpg"
CITY_PHOTO = "leftImg8bit/val/bonn/{}_leftImg8bit.png"
CITY_LABELS = "gtFine/val/bonn/{}_gtFine_labelTrainIds.png"
CONTEXT_LIST = "ImageSets/SegmentationContext/val.txt"
VOC_LIST = "ImageSets/Segmentation/val.txt"

LAYOUTS = [
    # benchmark, its folder, photo, label file, stored values, labels, split file
    ("ade20k_150", ADE, ADE_PHOTO, "annotations_detectron2/validation/{}.png", [0, 149, 255], [0, 149, -1], None),
    ("ade20k_150", ADE, ADE_PHOTO, "annotations/validation/{}.png", [1, 150, 0], [0, 149, -1], None),
    ("ade20k_150", f"ade/{ADE}", ADE_PHOTO, "annotations/validation/{}.png", [1, 2, 0], [0, 1, -1], None),
    (
        *("ade20k_847", FULL, "images_detectron2/validation/{}.jpg", "annotations_detectron2/validation/{}.tif"),
        *([0, 846, 65535], [0, 846, -1], None),
    ),
    ("context_59", VOC10, VOC_PHOTO, "SegmentationClassContext/{}.png", [1, 59, 0], [0, 58, -1], CONTEXT_LIST),
    ("context_59", VOC10, VOC_PHOTO, "SegmentationClassContext/{}.png", [1, 255], [0, -1], "pascalcontext_val.txt"),
    ("context_59", "pcontext", "val/image/{}.jpg", "val/label/{}.png", [0, 58, 255], [0, 58, -1], None),
    ("context_59", VOC10, VOC_PHOTO, "trainval/{}.mat", [2, 360, 460], [0, 46, -1], CONTEXT_LIST),
    ("context_60", VOC10, VOC_PHOTO, "SegmentationClassContext/{}.png", [0, 1, 59], [0, 1, 59], CONTEXT_LIST),
    ("context_60", VOC10, VOC_PHOTO, "trainval/{}.mat", [460, 2, 360], [0, 1, 47], CONTEXT_LIST),
    ("context_60b", VOC10, VOC_PHOTO, "SegmentationClassContext/{}.png", [0, 1, 59], [0, 1, 59], CONTEXT_LIST),
    ("context_459", VOC10, VOC_PHOTO, "annotations_detectron2/pc459_val/{}.tif", [0, 458, 459], [0, 458, -1], None),
    ("context_459", "pcontext_full", "val/image/{}.jpg", "val/label/{}.tif", [0, 458, 65535], [0, 458, -1], None),
    ("context_459", VOC10, VOC_PHOTO, "trainval/{}.mat", [1, 459, 460], [0, 458, -1], CONTEXT_LIST),
    ("voc_20", VOC12, VOC_PHOTO, "annotations_detectron2/val/{}.png", [0, 19, 255], [0, 19, -1], None),
    ("voc_20", VOC12, VOC_PHOTO, "SegmentationClass/{}.png", [1, 20, 0], [0, 19, -1], VOC_LIST),
    ("voc_20", VOC12, VOC_PHOTO, "SegmentationClassAug/{}.png", [1, 20, 255], [0, 19, -1], VOC_LIST),
    ("voc_15_5", "VOC2012", VOC_PHOTO, "SegmentationClass/{}.png", [1, 20, 0], [0, 19, -1], "val.txt"),
    ("voc_20b", VOC12, VOC_PHOTO, "annotations_detectron2_bg/val/{}.png", [0, 20, 255], [0, 20, -1], None),
    ("voc_20b", VOC12, VOC_PHOTO, "SegmentationClass/{}.png", [1, 0, 255], [0, 20, -1], VOC_LIST),
    ("voc_21", VOC12, VOC_PHOTO, "SegmentationClass/{}.png", [0, 20, 255], [0, 20, -1], VOC_LIST),
    (
        *("coco_stuff_171", "coco", "val2017/{}.jpg", "stuffthingmaps_detectron2/val2017/{}.png"),
        *([0, 170, 255], [0, 170, -1], None),
    ),
    (
        *("coco_stuff_171", "coco-stuff", "images/val2017/{}.jpg", "annotations_detectron2/val2017/{}.png"),
        *([0, 170, 255], [0, 170, -1], None),
    ),
    (
        *("coco_stuff_171", "coco_stuff164k", "images/val2017/{}.jpg", "annotations/val2017/{}_labelTrainIds.png"),
        *([0, 170, 255], [0, 170, -1], None),
    ),
    (
        *("coco_stuff_171", "coco_stuff164k", "images/val2017/{}.jpg", "annotations/val2017/{}.png"),
        *([12, 181, 255], [11, 170, -1], None),
    ),
    ("coco_stuff_171", "coco", "val2017/{}.jpg", "stuffthingmaps/val2017/{}.png", [12, 181, 25], [11, 170, -1], None),
    (
        *("coco_object_81", "coco", "images/val2017/{}.jpg", "annotations/val2017/{}_instanceTrainIds.png"),
        *([0, 1, 80], [0, 1, 80], None),
    ),
    ("coco_object_81", "coco", "val2017/{}.jpg", "stuffthingmaps/val2017/{}.png", [0, 89, 255], [1, 80, 0], None),
    ("cityscapes_19", CITY, CITY_PHOTO, CITY_LABELS, [0, 18, 255], [0, 18, -1], None),
    (
        *("cityscapes_19", CITY, CITY_PHOTO, "gtFine/val/bonn/{}_gtFine_labelIds.png"),
        *([7, 33, 30], [0, 18, -1], None),
    ),
]


def write(home: Path, photo: str, labels: str, stored: list[int], split: str | None = None, key: str = "a_1") -> None:
    """One image of a benchmark; label files that are PNG have a palette, as VOC's and COCO's may."""
    trees.photo(home / photo.format(key), 1, len(stored))
    trees.labels(home / labels.format(key), [stored], colours=labels.endswith(".png"))
    if split:
        trees.listing(home / split, [key])


@pytest.mark.parametrize(("name", "home", "photo", "labels", "stored", "expected", "split"), LAYOUTS)
def test_every_layout_gives_labels_in_one_numbering(tmp_path, name, home, photo, labels, stored, expected, split):
    write(tmp_path / home, photo, labels, stored, split)
    for root in (tmp_path, tmp_path / home):  # the root may be the benchmark's own folder
        dataset = datasets.open_dataset(name, root)
        (sample,) = dataset
        assert sample.key == "a_1"
        assert sample.image == tmp_path / home / photo.format("a_1")
        assert sample.labels == tmp_path / home / labels.format("a_1")
        decoded = dataset.load_labels(sample)
        assert decoded.dtype == np.int32
        assert decoded.tolist() == [expected]


def test_colour_coded_cityscapes(tmp_path):
    trees.photo(tmp_path / CITY / CITY_PHOTO.format("bonn_0"), 1, 3)
    colours = [(128, 64, 128, 255), (119, 11, 32, 255), (81, 0, 81, 255)]  # road, bicycle, ground
    trees.picture(tmp_path / CITY / "gtFine/val/bonn/bonn_0_gtFine_color.png", [colours])
    dataset = datasets.open_dataset("cityscapes_19", tmp_path)
    assert dataset.load_labels(dataset.samples[0]).tolist() == [[0, 18, IGNORE]]


@pytest.mark.parametrize(("sky", "grass", "bedclothes"), [(46, 28, 3), (49, 35, 51)], ids=["sed", "ovseg"])
def test_both_orders_of_pc59_val_are_told_apart(tmp_path, sky, grass, bedclothes):
    home, labels = tmp_path / VOC10, "annotations_detectron2/pc59_val/{}.png"
    for key, stored in {"a": [sky, sky, bedclothes], "b": [grass, 255, 0], "c": [56, 56, 56]}.items():
        write(home, VOC_PHOTO, labels, stored, None, key)
    (home / labels.format("broken")).write_bytes(b"no image")
    dataset = datasets.open_dataset("context_59", tmp_path)
    names = dataset.vocabulary.names
    found = {s.key: dataset.load_labels(s)[0] for s in dataset if s.key != "broken"}
    assert [names[i] for i in found["a"]] == ["sky", "sky", "bedclothes"]
    assert [names[i] for i in found["b"][[0, 2]]] == ["grass", "aeroplane"]
    assert names[found["c"][0]] == "water"


@pytest.mark.parametrize("name", [name for name, known in DATASETS.items() if known.publisher])
def test_every_table_reaches_every_class_and_none_else(name):
    known = DATASETS[name]
    for variant in class_names.variants(known.names):
        classes = len(class_names.load_class_names(variant)) - max(
            0, known.rivals - 1
        )  # the background takes their place
        for layout in known.layouts:
            assert set(layout.table.values()) - {IGNORE} == set(range(classes))
    assert f"{known.names}.{known.publisher}" in class_names.variants(known.names)


def voc(root: Path, name: str = "voc_20", vocabulary: str | None = None):
    write(root / VOC12, VOC_PHOTO, "SegmentationClass/{}.png", [1, 20, 0], VOC_LIST)
    return datasets.open_dataset(name, root, vocabulary)


def test_splits_of_seen_and_unseen_classes(tmp_path):
    dataset = voc(tmp_path, "voc_15_5")
    assert [dataset.vocabulary.names[i] for i in dataset.unseen] == [
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ]
    assert dataset.seen == tuple(range(15))
    assert voc(tmp_path).seen == voc(tmp_path).unseen == ()


def test_coco_stuff_has_156_seen_and_15_unseen_classes(tmp_path):
    write(tmp_path / "coco", "val2017/{}.jpg", "stuffthingmaps/val2017/{}.png", [0])
    dataset = datasets.open_dataset("coco_stuff_171", tmp_path)
    assert (
        " ".join(dataset.vocabulary.names[i] for i in dataset.unseen)
        == "cow giraffe suitcase frisbee skateboard carrot "
        "scissors cardboard clouds grass playingfield river road tree wall-concrete"
    )
    assert sorted(dataset.seen + dataset.unseen) == list(range(171))


@pytest.mark.parametrize("name", ["voc_21", "voc_20b"])
def test_the_background_is_a_class_of_that_name(tmp_path, name):
    dataset = voc(tmp_path, name)
    assert len(dataset.vocabulary) == 21
    assert dataset.vocabulary.names[dataset.background] == "background"


def test_context_60b_asks_for_its_background_as_for_any_class(tmp_path):
    write(tmp_path / VOC10, VOC_PHOTO, "SegmentationClassContext/{}.png", [0, 1], CONTEXT_LIST)
    dataset = datasets.open_dataset("context_60b", tmp_path)
    assert (dataset.background, dataset.rivals) == (None, ())
    assert dataset.vocabulary == class_names.load_class_names("context_60.tagclip")


def test_voc_20b_asks_for_39_rivals_that_count_as_background(tmp_path):
    dataset = voc(tmp_path, "voc_20b")
    published = class_names.load_class_names("voc_20b.sed").names
    assert (*dataset.vocabulary.names[:20], *dataset.rivals) == published
    assert dataset.vocabulary.names[20:] == ("background",)
    assert voc(tmp_path).rivals == ()


def test_the_wording_is_chosen_by_publisher_or_variant(tmp_path):
    assert voc(tmp_path).vocabulary == class_names.load_class_names("voc_20.ovseg")
    assert voc(tmp_path, vocabulary="san").vocabulary == class_names.load_class_names("voc_20.san")
    assert voc(tmp_path, "voc_15_5", "voc_20.san").vocabulary == class_names.load_class_names("voc_20.san")


@pytest.mark.parametrize("vocabulary", ["ade20k_150.sed", "nobody", "voc_21.segclip"])
def test_names_of_another_benchmark_are_refused(tmp_path, vocabulary):
    with pytest.raises(VocabularyError, match=rf"'{vocabulary}' are no class names of voc_20; .*voc_20\.san"):
        voc(tmp_path, vocabulary=vocabulary)


def test_the_split_file_says_what_belongs(tmp_path):
    voc(tmp_path)
    write(tmp_path / VOC12, VOC_PHOTO, "SegmentationClass/{}.png", [1], None, "training")
    trees.listing(tmp_path / VOC12 / VOC_LIST, ["b_2", "a_1"])
    dataset = datasets.open_dataset("voc_20", tmp_path)
    assert [sample.key for sample in dataset] == ["a_1", "b_2"]
    missing = dataset.samples[1]
    assert missing.image == tmp_path / VOC12 / "JPEGImages/b_2.jpg"
    with pytest.raises(DatasetError, match=r"no label file .*SegmentationClass/b_2\.png"):
        dataset.load_labels(missing)


def test_without_a_split_file_detectron2s_label_files_say_what_belongs(tmp_path):
    write(tmp_path / VOC12, VOC_PHOTO, "annotations_detectron2/val/{}.png", [1])
    trees.photo(tmp_path / VOC12 / VOC_PHOTO.format("training"))
    assert [sample.key for sample in datasets.open_dataset("voc_20", tmp_path)] == ["a_1"]


def test_a_photo_without_mask_and_a_mask_without_photo_are_left_to_the_run(tmp_path):
    home = tmp_path / CITY
    write(home, CITY_PHOTO, CITY_LABELS, [0], None, "both")
    trees.photo(home / CITY_PHOTO.format("photo"))
    trees.labels(home / CITY_LABELS.format("mask"), [[0]])
    dataset = datasets.open_dataset("cityscapes_19", tmp_path)
    samples = {sample.key: sample for sample in dataset}
    assert list(samples) == ["both", "mask", "photo"]
    assert samples["photo"].labels == home / CITY_LABELS.format("photo")
    assert not samples["mask"].image.exists()
    with pytest.raises(DatasetError, match="bonn/photo_gtFine_labelTrainIds"):
        dataset.load_labels(samples["photo"])


def test_converted_maps_beside_raw_ones_are_not_taken_for_raw_ones(tmp_path):
    home, raw = tmp_path / "coco_stuff164k", "annotations/val2017/{}.png"
    write(home, "images/val2017/{}.jpg", raw, [12])
    trees.labels(home / raw.format("a_1_instanceTrainIds"), [[12]])
    dataset = datasets.open_dataset("coco_stuff_171", tmp_path)
    assert [sample.key for sample in dataset] == ["a_1"]
    assert dataset.load_labels(dataset.samples[0]).tolist() == [[11]]


def test_a_wrong_root_says_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "holidays").mkdir()
    with pytest.raises(DatasetError) as raised:
        datasets.open_dataset("ade20k_150", tmp_path)
    assert f"ade20k_150 is not under {tmp_path}" in str(raised.value)
    assert f"{ADE}/images/validation/*.jpg (absent)" in str(raised.value)
    assert f"{ADE}/annotations/validation/*.png (absent)" in str(raised.value)
    assert "The folder holds holidays." in str(raised.value)


def test_photos_without_labels_are_counted_in_the_error(tmp_path):
    for key in "ab":
        trees.photo(tmp_path / f"{ADE}/images/validation/{key}.jpg")
    trees.labels(tmp_path / f"{ADE}/annotations/validation/other.tif", [[1]])
    with pytest.raises(DatasetError) as raised:
        datasets.open_dataset("ade20k_150", tmp_path)
    assert f"{ADE}/images/validation/*.jpg (2 found)" in str(raised.value)
    assert f"{ADE}/annotations/validation/*.png (none, but other.tif)" in str(raised.value)


def test_labels_that_go_with_no_photo_are_an_error(tmp_path):
    trees.photo(tmp_path / f"{ADE}/images/validation/a.jpg")
    trees.labels(tmp_path / f"{ADE}/annotations/validation/b.png", [[1]])
    with pytest.raises(DatasetError, match=r"jpg \(1 found\).*png \(1 found\)"):
        datasets.open_dataset("ade20k_150", tmp_path)


def test_a_missing_split_file_is_named(tmp_path):
    voc(tmp_path)
    (tmp_path / VOC12 / VOC_LIST).unlink()
    with pytest.raises(DatasetError, match=r"ImageSets/Segmentation/val\.txt \(absent\)"):
        datasets.open_dataset("voc_20", tmp_path)


def test_no_such_folder_and_no_such_benchmark(tmp_path):
    with pytest.raises(DatasetError, match=r"no folder .*nowhere"):
        datasets.open_dataset("voc_20", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no dataset 'pets'; there are ade20k_150, .*folder"):
        datasets.open_dataset("pets", tmp_path)


def test_a_value_beyond_the_classes_is_an_error_with_path_and_value(tmp_path):
    dataset = voc(tmp_path)
    path = dataset.samples[0].labels
    trees.labels(path, [[1, 21]])
    with pytest.raises(DatasetError, match=rf"{path} holds the value 21"):
        dataset.load_labels(dataset.samples[0])
    trees.picture(path, [[(1, 1, 1)]])
    with pytest.raises(DatasetError, match=rf"{path} is a picture in colour"):
        dataset.load_labels(dataset.samples[0])


@pytest.mark.parametrize("suffix", [".png", ".mat", ".tif"])
def test_a_corrupt_file_is_an_error_with_its_path(tmp_path, suffix):
    name, folder = {
        ".png": ("context_59", "SegmentationClassContext"),
        ".mat": ("context_459", "trainval"),
        ".tif": ("context_459", "annotations_detectron2/pc459_val"),
    }[suffix]
    values = np.random.default_rng(0).integers(1, 59, (40, 40)).tolist()
    trees.photo(tmp_path / VOC10 / "JPEGImages/a.jpg")
    path = tmp_path / VOC10 / folder / f"a{suffix}"
    trees.labels(path, values)
    trees.listing(tmp_path / VOC10 / CONTEXT_LIST, ["a"])
    dataset = datasets.open_dataset(name, tmp_path)
    assert dataset.load_labels(dataset.samples[0]).shape == (40, 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=f"{path} is corrupt"):
        dataset.load_labels(dataset.samples[0])


def test_a_matlab_file_of_something_else_is_refused(tmp_path):
    write(tmp_path / VOC10, VOC_PHOTO, "trainval/{}.mat", [1], CONTEXT_LIST)
    dataset = datasets.open_dataset("context_459", tmp_path)
    scipy.io.savemat(dataset.samples[0].labels, {"other": np.zeros(3)})
    with pytest.raises(DatasetError, match="no variable LabelMap"):
        dataset.load_labels(dataset.samples[0])


def test_a_dataset_can_be_sent_to_another_process(tmp_path):
    dataset = pickle.loads(pickle.dumps(voc(tmp_path)))
    assert dataset.load_labels(dataset.samples[0]).tolist() == [[0, 19, IGNORE]]


# A folder of one's own ------------------------------------------------------------------------------------------------


def own(root: Path, names: object, stored: list[int], key: str = "a"):
    trees.photo(root / f"images/{key}.jpg", 1, len(stored))
    trees.labels(root / f"masks/{key}.png", [stored])
    (root / "classes.json").write_text(json.dumps(names))
    return datasets.open_dataset("folder", root)


@pytest.mark.parametrize(
    ("names", "background"),
    [(["cat", "dog"], None), (["cat", "dog", "background"], 2), (["null", "coat"], 0), (["Background", "cat"], 0)],
)
def test_a_folder_takes_its_names_and_its_background_from_classes_json(tmp_path, names, background):
    dataset = own(tmp_path, names, [0, len(names) - 1, 255])
    assert (dataset.vocabulary.names, dataset.background) == (tuple(names), background)
    assert dataset.load_labels(dataset.samples[0]).tolist() == [[0, len(names) - 1, IGNORE]]


def test_a_folder_may_be_asked_to_ignore_its_background(tmp_path):
    own(tmp_path, ["cat", "background", "dog"], [0, 1, 2, 255])
    dataset = datasets.open_dataset("folder_named", tmp_path)
    assert (dataset.vocabulary.names, dataset.background) == (("cat", "dog"), None)
    assert dataset.load_labels(dataset.samples[0]).tolist() == [[0, IGNORE, 1, IGNORE]]


def test_a_list_of_images_that_is_no_text_is_one_sentence(tmp_path):
    own(tmp_path, ["cat"], [0])
    layout = replace(DATASETS["folder"].layouts[0], split=("val.txt",))
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="list of images"):
        find_samples("folder", [layout], tmp_path)


@pytest.mark.parametrize("stored", [np.array([[0, 1]], np.float32), np.array([[0, -1]], np.int32)])
def test_values_that_are_no_indices_are_refused(tmp_path, stored):
    Image.fromarray(stored).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match="whole numbers from 0 on"):
        label_decoder(value_table(range(2)), read_values)(tmp_path / "a.tif")


def test_a_matlab_file_with_fractions_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"LabelMap": np.array([[1.5]])})
    with pytest.raises(DatasetError, match="no whole numbers"):
        label_decoder(value_table(range(2)), read_label_map)(tmp_path / "a.mat")


def test_any_file_name_belongs_to_a_part():
    assert held_out(os.fsdecode(b"\xff photo")) in (True, False)


def test_the_split_sets_about_three_tenths_aside_for_good():
    keys = [f"photo {number}" for number in range(1000)]
    assert 250 < sum(map(held_out, keys)) < 350
    assert [key for key in keys[:20] if held_out(key)] == ["photo 0", "photo 5", "photo 6", "photo 7", "photo 13"]


def test_a_folder_takes_photos_of_any_format(tmp_path):
    own(tmp_path, ["cat"], [0])
    trees.photo(tmp_path / "images/b.PNG")
    trees.labels(tmp_path / "masks/b.png", [[0]])
    (tmp_path / "images/._b.png").write_bytes(b"left behind by an archive")
    (tmp_path / "images/notes.txt").write_text("not a photo")
    assert [sample.image.name for sample in datasets.open_dataset("folder", tmp_path)] == ["a.jpg", "b.PNG"]


def test_two_photos_of_one_name_are_an_error(tmp_path):
    own(tmp_path, ["cat"], [0])
    trees.photo(tmp_path / "images/a.png")
    with pytest.raises(DatasetError, match=r"a\.\w+ and .*a\.\w+ have one name"):
        datasets.open_dataset("folder", tmp_path)


def test_masks_of_more_than_255_classes_have_16_bits(tmp_path):
    names = [f"thing {i}" for i in range(300)]
    own(tmp_path, names, [0])
    Image.fromarray(np.array([[255, 299, 65535]], np.uint16)).save(tmp_path / "masks/a.png")
    dataset = datasets.open_dataset("folder", tmp_path)
    assert dataset.load_labels(dataset.samples[0]).tolist() == [[255, 299, IGNORE]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "cat"}, "is not a list of names"),
        ([], "is not a list of names"),
        (["cat", 3], "is not a list of names"),
        (["cat", "Cat "], "'Cat' twice"),
        (["null", "cat", "background"], "null and background"),
    ],
)
def test_an_unusable_list_of_names_is_an_error(tmp_path, names, message):
    with pytest.raises(DatasetError, match=rf"{tmp_path / 'classes.json'}.*{message}"):
        own(tmp_path, names, [0])


def test_a_folder_without_or_with_broken_classes_json(tmp_path):
    own(tmp_path, ["cat"], [0])
    (tmp_path / "classes.json").write_text("[")
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        datasets.open_dataset("folder", tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DatasetError, match=r"no .*classes\.json"):
        datasets.open_dataset("folder", tmp_path)


def test_a_folder_takes_no_other_names(tmp_path):
    own(tmp_path, ["cat"], [0])
    with pytest.raises(DatasetError, match=r"classes\.json"):
        datasets.open_dataset("folder", tmp_path, "voc_20.san")
