"""The region benchmark, on a model that always knows and one that never does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval import region_accuracy as benchmark

NAMES = ["cat", "dog", "sky", "sea", "car", "bus", "background"]


class Oracle:
    """Reads the class from the grey value of the region; `sign` -1 makes it always wrong."""

    name = "oracle"

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def embed_texts(self, words):
        return torch.eye(len(words))

    def embed_regions(self, image, proposals, report):
        grey = [int(image[proposals.mask(i)][0, 0]) for i in range(len(proposals))]
        return torch.eye(len(NAMES))[grey]

    def logits(self, regions, texts):
        return self.sign * 100 * regions @ texts.T


@pytest.fixture
def root(tmp_path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    for key, halves in enumerate([(0, 1), (2, 255), (3, 6)]):
        labels = np.repeat(np.uint8(halves), 16)[None].repeat(16, 0)
        Image.fromarray(labels).save(tmp_path / "masks" / f"{key}.png")
        Image.fromarray(labels).convert("RGB").save(tmp_path / "images" / f"{key}.jpg", quality=100)
    return tmp_path


def test_every_labelled_region_but_ignored_and_background_counts(root):
    regions = benchmark.measure_regions(Oracle(1), root, NAMES, None)
    assert regions.labels.tolist() == [0, 1, 2, 3]
    assert regions.photos.tolist() == [0, 0, 1, 2]
    assert len(benchmark.measure_regions(Oracle(1), root, NAMES, 1).labels) == 2


@pytest.mark.parametrize(("sign", "share"), [(1, "100.0"), (-1, "0.0")])
def test_table_of_a_perfect_and_a_hopeless_model(root, sign, share):
    lines = benchmark.accuracy_table(benchmark.measure_regions(Oracle(sign), root, NAMES, None), NAMES).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| all 6 names |")
    assert all(line.split(" | ")[1] == share for line in lines[2:])


def test_vocabularies_hold_the_right_name_once_and_repeat(root):
    regions = benchmark.measure_regions(Oracle(1), root, NAMES, None)
    for same_photo in (False, True):
        words = benchmark.draw_vocabularies(regions, list(range(6)), same_photo)
        assert words.shape == (4, benchmark.VOCABULARIES, benchmark.VOCABULARY_SIZE)
        assert (words[..., 0] == regions.labels[:, None]).all()
        assert all(len(set(row.tolist())) == benchmark.VOCABULARY_SIZE for row in words.flatten(0, 1))
        assert torch.equal(words, benchmark.draw_vocabularies(regions, list(range(6)), same_photo))
    assert (words[0] == 1).any(1).all(), "the dog beside the cat is always among its distractors"


@pytest.mark.parametrize("part", ["images", "masks", "classes.json"])
def test_a_wrong_folder_is_one_line(tmp_path, root, part):
    (root / part).rename(root / "elsewhere")
    with pytest.raises(SystemExit, match=f"{part} is missing"):
        benchmark.class_names(root)


def test_a_missing_image_and_a_wrong_size_are_one_line(root):
    Image.new("RGB", (5, 5)).save(root / "images" / "0.jpg")
    with pytest.raises(SystemExit, match="its mask is"):
        benchmark.measure_regions(Oracle(1), root, NAMES, None)
    (root / "images" / "0.jpg").unlink()
    with pytest.raises(SystemExit, match="is missing"):
        benchmark.measure_regions(Oracle(1), root, NAMES, None)


def test_one_part_or_some_classes_only(root):
    parts = [
        benchmark.measure_regions(Oracle(1), root, NAMES, part=part).labels.tolist() for part in ("held-out", "rest")
    ]
    assert sorted(parts[0] + parts[1]) == [0, 1, 2, 3]
    assert all(parts)
    only = benchmark.measure_regions(Oracle(1), root, NAMES, only=["dog", "sea"])
    assert only.labels.tolist() == [1, 3]
    assert only.logits.shape == (2, len(NAMES))


def test_an_unknown_class_is_one_line(root, monkeypatch):
    monkeypatch.setattr("sys.argv", ["region_accuracy", "--root", str(root), "--only", "unicorn"])
    with pytest.raises(SystemExit, match="no class unicorn"):
        benchmark.main()
