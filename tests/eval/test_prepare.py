"""Raw annotations become files that the benchmarks are read from."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import datasets, prepare
from eval.datasets import DATASETS
from eval.datasets.base import DatasetError
from tests.helpers import trees

ADE = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"
VOC10 = "VOCdevkit/VOC2010"
VOC12 = "VOCdevkit/VOC2012"
STREET = f"{FULL}/images/ADE/validation/urban/street"

CONTEXT_LIST = "pascalcontext_val.txt"
VOC_LIST = "ImageSets/Segmentation/val.txt"

CONVERSIONS = [
    # benchmark, its folder, photos, raw file, raw values, written file, stored values, split file
    (
        *("ade20k_150", ADE, "images/validation", "annotations/validation/a.png", [0, 1, 150]),
        *("annotations_detectron2/validation/a.png", [255, 0, 149], None),
    ),
    (
        *("context_59", VOC10, "JPEGImages", "trainval/a.mat", [2, 360, 460]),
        *("SegmentationClassContext/a.png", [1, 47, 0], CONTEXT_LIST),
    ),
    (
        *("context_60", VOC10, "JPEGImages", "trainval/a.mat", [2, 360, 1]),
        *("SegmentationClassContext/a.png", [1, 47, 0], CONTEXT_LIST),
    ),
    (
        *("context_459", VOC10, "JPEGImages", "trainval/a.mat", [1, 459, 460]),
        *("annotations_detectron2/pc459_val/a.tif", [0, 458, 65535], CONTEXT_LIST),
    ),
    (
        *("voc_20", VOC12, "JPEGImages", "SegmentationClass/a.png", [0, 1, 20]),
        *("annotations_detectron2/val/a.png", [255, 0, 19], VOC_LIST),
    ),
    (
        *("voc_15_5", VOC12, "JPEGImages", "SegmentationClassAug/a.png", [255, 1, 20]),
        *("annotations_detectron2/val/a.png", [255, 0, 19], VOC_LIST),
    ),
    (
        *("voc_20b", VOC12, "JPEGImages", "SegmentationClassAug/a.png", [0, 1, 255]),
        *("annotations_detectron2_bg/val/a.png", [20, 0, 255], VOC_LIST),
    ),
    (
        *("coco_stuff_171", "coco", "val2017", "stuffthingmaps/val2017/a.png", [0, 12, 181]),
        *("stuffthingmaps_detectron2/val2017/a.png", [0, 11, 170], None),
    ),
    (
        *("coco_stuff_171", "coco-stuff", "images/val2017", "annotations/val2017/a.png", [0, 181, 255]),
        *("annotations_detectron2/val2017/a.png", [0, 170, 255], None),
    ),
    (
        *("coco_stuff_171", "coco_stuff164k", "images/val2017", "annotations/val2017/a.png", [0, 181, 11]),
        *("annotations/val2017/a_labelTrainIds.png", [0, 170, 255], None),
    ),
    (
        *("coco_object_81", "coco_stuff164k", "images/val2017", "annotations/val2017/a.png", [0, 89, 91]),
        *("annotations/val2017/a_instanceTrainIds.png", [1, 80, 0], None),
    ),
    (
        *("coco_object_81", "coco", "val2017", "stuffthingmaps/val2017/a.png", [12, 255, 90]),
        *("annotations/val2017/a_instanceTrainIds.png", [12, 0, 0], None),
    ),
    (
        *("cityscapes_19", "cityscapes", "leftImg8bit/val/bonn", "gtFine/val/bonn/a_gtFine_labelIds.png", [7, 33, 0]),
        *("gtFine/val/bonn/a_gtFine_labelTrainIds.png", [0, 18, 255], None),
    ),
]


@pytest.mark.parametrize(("name", "home", "photos", "raw", "values", "written", "stored", "split"), CONVERSIONS)
def test_raw_values_are_renumbered(tmp_path, name, home, photos, raw, values, written, stored, split):
    home = tmp_path / home
    trees.photo(home / photos / ("a_leftImg8bit.png" if "bonn" in photos else "a.jpg"), 1, 3)
    trees.labels(home / raw, [values])
    if split:
        trees.listing(home / split, ["a"])
    before = datasets.open_dataset(name, tmp_path)
    expected = before.load_labels(before.samples[0])
    outcome = prepare.prepare(name, tmp_path)
    assert (outcome.labels, outcome.written, outcome.kept, outcome.failures) == (1, 1, 0, ())
    pixels = np.asarray(Image.open(home / written))
    assert pixels.dtype == (np.uint16 if written.endswith(".tif") else np.uint8)
    assert pixels.tolist() == [stored]
    after = datasets.open_dataset(name, tmp_path)
    assert after.samples[0].labels == home / written
    assert after.load_labels(after.samples[0]).tolist() == expected.tolist()


@pytest.mark.parametrize("name", [name for name, known in DATASETS.items() if known.conversions])
def test_what_is_written_is_what_is_looked_for(name):
    known = DATASETS[name]
    for conversion in known.conversions:
        found = [
            each for each in DATASETS[name].layouts if replace(each, table={}) == replace(conversion.target, table={})
        ]
        assert found
        assert set(conversion.source.homes) <= set(found[0].homes)


def full_ade(root: Path, key: str, height: int, width: int) -> None:
    """An image of the full ADE20K: a wall (object 2978) to the left, to the right object 1, which is no class."""
    trees.photo(root / STREET / f"{key}.jpg", height, width)
    coded = np.zeros((height, width, 3), np.uint8)
    coded[:, : width // 2] = (2978 // 256 * 10, 2978 % 256, 7)
    coded[:, width // 2 :] = (9, 1, 7)
    trees.picture(root / STREET / f"{key}_seg.png", coded.tolist())
    trees.picture(root / STREET / f"{key}_parts_1.png", coded.tolist())


def test_the_full_ade20k_is_scaled_to_512_pixels(tmp_path):
    full_ade(tmp_path, "ADE_val_00000001", 1024, 1100)
    full_ade(tmp_path, "ADE_val_00000002", 40, 30)
    outcome = prepare.prepare("ade20k_847", tmp_path)
    assert (outcome.labels, outcome.written) == (2, 4)
    dataset = datasets.open_dataset("ade20k_847", tmp_path)
    large, small = dataset.samples
    assert large.labels == tmp_path / FULL / "annotations_detectron2/validation/ADE_val_00000001.tif"
    assert Image.open(large.labels).mode == "I;16"
    for sample, size in ((large, (512, 550)), (small, (40, 30))):
        labels = dataset.load_labels(sample)
        assert labels.shape == Image.open(sample.image).size[::-1] == size
        assert set(labels[:, : size[1] // 2].ravel()) == {dataset.vocabulary.names.index("wall")}
        assert set(labels[:, size[1] // 2 :].ravel()) == {datasets.IGNORE}


def ade(root: Path, keys: str) -> None:
    for key in keys:
        trees.photo(root / f"{ADE}/images/validation/{key}.jpg")
        trees.labels(root / f"{ADE}/annotations/validation/{key}.png", [[1, 2, 0]])


def test_a_second_run_makes_only_what_is_missing(tmp_path):
    ade(tmp_path, "ab")
    first = prepare.prepare("ade20k_150", tmp_path)
    kept = first.folder / "a.png"
    os.utime(kept, (0, 0))
    (first.folder / "b.png").unlink()
    (first.folder / "b.png.part").write_bytes(b"of a run that was killed")
    ade(tmp_path, "c")
    second = prepare.prepare("ade20k_150", tmp_path)
    assert (second.labels, second.written, second.kept) == (3, 2, 1)
    assert kept.stat().st_mtime == 0
    assert sorted(path.name for path in second.folder.iterdir()) == ["a.png", "b.png", "c.png"]


def test_corrupt_files_are_reported_and_do_not_end_the_run(tmp_path, capsys):
    ade(tmp_path, "abc")
    broken = tmp_path / f"{ADE}/annotations/validation/b.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert prepare.main(["ade20k_150", str(tmp_path), "--allow-partial"]) == 1
    shown = capsys.readouterr().err
    assert f"error: The label file {broken} is corrupt" in shown
    assert "2 files written" in shown
    assert "1 files could not be converted" in shown
    assert len(datasets.open_dataset("ade20k_150", tmp_path)) == 3


def test_a_photo_of_the_full_ade20k_that_is_missing_or_corrupt_is_reported(tmp_path):
    full_ade(tmp_path, "a", 4, 4)
    full_ade(tmp_path, "b", 4, 4)
    (tmp_path / STREET / "a.jpg").unlink()
    (tmp_path / STREET / "b.jpg").write_bytes(b"no photo")
    missing, corrupt = sorted(prepare.prepare("ade20k_847", tmp_path).failures, key=lambda text: "corrupt" in text)
    assert f"no photo {tmp_path / STREET / 'a.jpg'}" in missing
    assert f"{tmp_path / STREET / 'b.jpg'} is corrupt" in corrupt


def test_a_write_that_fails_leaves_nothing_and_ends_the_run(tmp_path, capsys, monkeypatch):
    ade(tmp_path, "ab")

    def full_disk(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    assert prepare.main(["ade20k_150", str(tmp_path)]) == 1
    assert "a.png cannot be written: No space left on device" in capsys.readouterr().err
    assert not any(path.is_file() for path in (tmp_path / ADE / "annotations_detectron2").rglob("*"))


def test_the_count_is_compared_with_the_published_one(tmp_path, capsys, monkeypatch):
    ade(tmp_path, "ab")
    assert prepare.main(["ade20k_150", str(tmp_path)]) == 1
    assert "there are 2 label maps, but ade20k_150 has 2000" in capsys.readouterr().err
    assert prepare.main(["ade20k_150", str(tmp_path), "--allow-partial"]) == 0
    monkeypatch.setitem(DATASETS, "ade20k_150", replace(DATASETS["ade20k_150"], images=2))
    assert prepare.main(["ade20k_150", str(tmp_path)]) == 0
    assert "0 files written" in capsys.readouterr().err


def test_missing_raw_annotations_are_an_error_that_says_where_they_belong(tmp_path, capsys):
    trees.photo(tmp_path / f"{ADE}/images/validation/a.jpg")
    assert prepare.main(["ade20k_150", str(tmp_path)]) == 1
    assert f"{ADE}/annotations/validation/*.png (absent)" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="voc_21 needs no preparation"):
        prepare.prepare("voc_21", tmp_path)


def test_unusable_arguments_exit_with_2(tmp_path):
    with pytest.raises(SystemExit) as raised:
        prepare.main(["pets", str(tmp_path)])
    assert raised.value.code == 2
