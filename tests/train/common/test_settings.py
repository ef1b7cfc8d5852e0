"""What people give to a run has its limits, and files are known by their content."""

import hashlib

import pytest

from ovseg_demo.errors import CheckpointError
from train.common.run_folder import TrainingError
from train.common.settings import check_at_least, describe_file, describe_weights


def test_a_number_below_the_least_is_named():
    check_at_least(1, batch=1, limit=None)
    with pytest.raises(TrainingError, match=r"^limit is 0, but must be 1 or more\.$"):
        check_at_least(1, batch=1, limit=0)


def test_files_are_known_by_their_content_wherever_they_lie(tmp_path):
    told = f"a.pt, sha256 {hashlib.sha256(b'weights').hexdigest()}"
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        (folder / "a.pt").write_bytes(b"weights")
        assert describe_file(folder / "a.pt") == describe_weights(str(folder / "a.pt")) == told
    (tmp_path / "one/a.pt").write_bytes(b"others!")
    assert describe_file(tmp_path / "one/a.pt") != told


def test_catalogued_weights_are_known_by_their_id():
    assert [describe_weights(name) for name in ("mini", "clip-vit-b16")] == ["mini", "clip-vit-b16"]
    with pytest.raises(CheckpointError, match=r"^There is no file clip-vit-b17\.$"):
        describe_weights("clip-vit-b17")
