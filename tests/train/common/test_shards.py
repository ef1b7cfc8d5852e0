"""Shards are read in random access, and damaged ones are named."""

import tarfile

import pytest

from tests.helpers.segclip_data import write_shard
from train.common.run_folder import TrainingError
from train.common.shards import TarShards


@pytest.fixture
def paths(tmp_path):
    samples = {f"./a.b/{key}": {"txt": key.encode(), "seg.png": b"mask of " + key.encode()} for key in "pqr"}
    paths = [tmp_path / "0.tar", tmp_path / "1.tar", tmp_path / "2.tar"]
    write_shard(paths[0], {key: samples[key] for key in ("./a.b/p", "./a.b/q")})
    write_shard(paths[1], {})
    write_shard(paths[2], {"./a.b/r": samples["./a.b/r"] | {"json": b"{}"}})
    return paths


def test_files_of_samples_are_read_in_any_order(paths):
    shards = TarShards(paths, ("seg.png", "txt"))
    assert (len(shards), shards.keys, shards.places.shape) == (3, ["./a.b/p", "./a.b/q", "./a.b/r"], (3, 2, 2))
    assert [shards.read(row, "txt") for row in (2, 0, 1)] == [b"r", b"p", b"q"]
    assert shards.read(1, "seg.png") == b"mask of q"
    assert shards.path(2) == paths[2]


def test_folders_are_no_samples(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.txt").write_text("one")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(tmp_path / "photos", "photos")
    assert TarShards([tmp_path / "0.tar"], ("txt",)).keys == ["photos/one"]


def test_no_shards_have_no_samples():
    assert len(TarShards([], ("txt",))) == 0


@pytest.mark.parametrize("damage", [lambda whole: whole[:700], lambda whole: b"no tar"])
def test_a_damaged_shard_is_told_with_advice(paths, damage):
    paths[0].write_bytes(damage(paths[0].read_bytes()))
    with pytest.raises(TrainingError, match=r"0\.tar is damaged; get it again\.$"):
        TarShards(paths, ("txt",), "; get it again")


def test_a_sample_without_a_file_is_damage(paths):
    with pytest.raises(TrainingError, match=r"0\.tar is damaged\.$"):
        TarShards(paths, ("txt", "json"))


def test_a_shard_that_is_gone_is_told(paths):
    shards = TarShards(paths, ("txt",))
    paths[2].unlink()
    assert shards.read(0, "txt") == b"p"
    with pytest.raises(TrainingError, match=r"2\.tar is damaged\.$"):
        shards.read(2, "txt")
