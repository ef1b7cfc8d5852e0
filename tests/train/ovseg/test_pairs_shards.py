"""Shards hold what was written, in WebDataset's format, whole or not at all."""

import json
import sys

import numpy as np
import pytest
import webdataset

from tests.helpers.pairs_data import folder_of, pair
from train.common.run_folder import RunFolder, TrainingError
from train.ovseg.pairs import shards
from train.ovseg.pairs.shards import PairShards

PAIRS = [
    pair(word, f"set/{n}", (20 + 3 * n, 33), n) for n, word in enumerate(["red", "grass", "water", "snow", "dög|"])
]


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path, PAIRS, each=1)


def test_pairs_are_read_as_they_were_written(folder):
    found = PairShards(folder)
    assert len(found) == 5
    assert found.photos.tolist() == [0, 1, 2, 3, 4]
    for index in (4, 0, 2):
        read, written = found[index], PAIRS[index]
        assert found.metadata(index) == {
            name: getattr(written, name) for name in ("word", "caption", "score", "photo", "box")
        }
        assert (read.word, read.caption, read.score) == (written.word, written.caption, written.score)
        assert (read.photo, read.box) == (written.photo, written.box)
        np.testing.assert_array_equal(read.mask, written.mask)
        assert read.mask.dtype == bool
        inside = np.abs(read.crop[2:8, 2:8].astype(int) - written.crop[2:8, 2:8])
        assert read.crop.shape == written.crop.shape
        assert inside.max() <= 12, "the photo within the mask survives JPEG"
        outside = ~written.mask
        assert read.crop[outside].std() > 20, "what is outside of the mask is not filled"


def test_webdataset_streams_them(folder):
    shown = webdataset.WebDataset(str(shards.shard_path(RunFolder(folder, {}), 0)), shardshuffle=False).decode("rgb8")
    found = list(shown.to_tuple("__key__", "jpg", "png", "json"))
    assert [key for key, *_ in found] == [f"0000000{n}-000" for n in range(4)]
    assert [facts["word"] for *_, facts in found] == ["red", "grass", "water", "snow"]
    assert found[1][1].shape == (23, 33, 3)
    np.testing.assert_array_equal(found[1][2][..., 0] > 0, PAIRS[1].mask)


def test_a_shard_of_photos_without_pairs_is_empty(tmp_path):
    shards.write_shards(RunFolder(tmp_path, {}), 0, {0: [], 1: []})
    with pytest.raises(TrainingError, match=r"holds no pairs\.$"):
        PairShards(tmp_path)
    shards.write_shards(RunFolder(tmp_path, {}), 1, {2: [], 3: PAIRS[:2]})
    assert PairShards(tmp_path).photos.tolist() == [3, 3]
    with pytest.raises(TrainingError, match="holds no pairs"):
        PairShards(tmp_path / "nowhere")


def test_the_same_pairs_make_the_same_bytes(tmp_path):
    one, other = (folder_of(tmp_path / name, PAIRS) for name in "ab")
    assert (one / "pairs-000000.tar").read_bytes() == (other / "pairs-000000.tar").read_bytes()


def test_reading_needs_no_library_and_writing_says_which(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    assert PairShards(folder)[1].word == "grass"
    with pytest.raises(
        TrainingError, match=r"^train\.ovseg\.pairs needs more libraries \(.*webdataset.*\): pip install -r"
    ):
        shards.write_shards(RunFolder(folder, {}), 9, {})
    assert not list(folder.glob("*.part"))


def test_a_full_disk_leaves_no_shard(tmp_path, monkeypatch):
    class Full(webdataset.TarWriter):
        def write(self, sample):
            super().write(sample)
            raise OSError(28, "No space left on device")

    folder = RunFolder(tmp_path, {})
    with monkeypatch.context() as patched:
        patched.setattr(webdataset, "TarWriter", Full)
        with pytest.raises(TrainingError, match=r"No space left on device\. What it holds is kept"):
            shards.write_shards(folder, 0, {0: PAIRS})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    shards.write_shards(folder, 0, {0: PAIRS})
    assert len(PairShards(tmp_path)) == 5


def test_damaged_shards_are_named(folder):
    whole = (folder / "pairs-000000.tar").read_bytes()
    (folder / "pairs-000000.tar").write_bytes(whole[:700])
    with pytest.raises(TrainingError, match=r"pairs-000000\.tar is damaged; delete it"):
        PairShards(folder)
    (folder / "pairs-000000.tar").write_bytes(whole.replace(json.dumps("grass").encode(), b'"grass' + b" "))
    found = PairShards(folder)
    with pytest.raises(TrainingError, match=r"pairs-000000\.tar is damaged"):
        found[1]
