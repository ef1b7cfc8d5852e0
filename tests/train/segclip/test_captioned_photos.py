"""Photos and captions come from folders and from shards, each caption once."""

import io
import json
import tarfile

import numpy as np
import pytest

from eval.datasets.base import DatasetError
from tests.helpers.mini_data import shrunk, write_described_set
from tests.helpers.segclip_data import write_shard
from train.common.run_folder import TrainingError
from train.segclip.captioned_photos import captioned_sets


def jpeg(size=(40, 30)) -> bytes:
    file = io.BytesIO()
    shrunk("pizza", size).save(file, "JPEG")
    return file.getvalue()


def test_every_caption_of_folders_and_shards_is_a_sample(tmp_path):
    write_described_set(tmp_path / "told_train", "captions", {"a": ["one", "two"], "b": ["three"], "c": []})
    write_described_set(tmp_path / "scene_train", "tags", {"sea": ["sea"]})
    for number, captions in enumerate((["four", " five\n"], ["six"])):
        shard = {f"{number}{row}": {"jpg": jpeg(), "txt": text.encode()} for row, text in enumerate(captions)}
        write_shard(tmp_path / f"web_train/{number:05d}.tar", shard)
    told, web = captioned_sets(tmp_path)
    assert (told.name, web.name) == ("told_train", "web_train")
    assert [told[row][1] for row in range(len(told))] == ["one", "two", "three"]
    assert [web[row][1] for row in range(len(web))] == ["four", "five", "six"]
    assert {told[row][0].shape for row in range(3)} == {(64, 64, 3)}
    assert (web[1][0].shape, web[1][0].dtype) == ((30, 40, 3), np.uint8)
    assert [len(pairs) for pairs in captioned_sets(tmp_path, limit=1)] == [2, 1]


def test_other_files_of_a_sample_are_passed_over(tmp_path):
    path = tmp_path / "web_train/0.tar"
    write_shard(path, {"0": {"json": b"{}", "jpg": jpeg(), "txt": b"a cat"}})
    [web] = captioned_sets(tmp_path)
    assert web[0][1] == "a cat"


def test_a_folder_may_have_both(tmp_path):
    write_described_set(tmp_path / "web_train", "captions", {"a": ["one"]})
    write_shard(tmp_path / "web_train/0.tar", {"0": {"jpg": jpeg(), "txt": b"two"}})
    assert {pairs.name: pairs[0][1] for pairs in captioned_sets(tmp_path)} == {
        "web_train": "one",
        "web_train-shards": "two",
    }


def test_a_folder_without_captions_is_told(tmp_path):
    (tmp_path / "empty_train").mkdir()
    with tarfile.open(tmp_path / "empty_train/0.tar", "w"):
        pass
    with pytest.raises(DatasetError, match=r"holds no folder NAME_train with images/ and captions\.json, or with"):
        captioned_sets(tmp_path)


def test_damaged_shards_are_named(tmp_path):
    path = tmp_path / "web_train/0.tar"
    write_shard(path, {"7": {"jpg": jpeg()}})
    with pytest.raises(TrainingError, match=r"web_train/0\.tar is damaged\.$"):
        captioned_sets(tmp_path)
    write_shard(path, {"7": {"jpg": jpeg()[:300], "txt": b"a cat"}, "8": {"jpg": jpeg(), "txt": b"\xff"}})
    [web] = captioned_sets(tmp_path)
    with pytest.raises(DatasetError, match=r"^7 in .*0\.tar cannot be used: .*"):
        web[0]
    with pytest.raises(DatasetError, match=r"^8 in .*0\.tar cannot be used: .*utf-8"):
        web[1]
    path.unlink()
    with pytest.raises(TrainingError, match=r"0\.tar is damaged\.$"):
        web[1]


def test_captions_that_are_no_lists_are_told(tmp_path):
    (tmp_path / "told_train").mkdir()
    (tmp_path / "told_train/captions.json").write_text(json.dumps({"a": "a cat"}))
    with pytest.raises(DatasetError, match="does not hold lists of texts by key"):
        captioned_sets(tmp_path)
