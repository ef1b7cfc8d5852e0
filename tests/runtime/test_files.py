"""Whole files: complete or as before, whatever interrupts the writing."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ovseg_demo.runtime.files import write_atomically

SHARED = pytest.mark.parametrize("shared", [False, True])


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "file.txt"
    path.write_bytes(b"before")
    return path


def names(path: Path) -> list[str]:
    return [name.name for name in path.parent.iterdir()]


@SHARED
def test_a_file_is_replaced_when_it_is_complete(path, shared):
    def write(file):
        file.write(b"after")
        assert path.read_bytes() == b"before"

    write_atomically(path, write, shared=shared)
    assert path.read_bytes() == b"after"
    assert names(path) == ["file.txt"]


@SHARED
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(path, shared, error):
    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write, shared=shared)
    assert path.read_bytes() == b"before"
    assert names(path) == ["file.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_that_shows_only_at_the_end_is_reported(path):
    path.with_name("file.txt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, lambda file: file.write(b"after"))
    assert path.read_bytes() == b"before"
    assert names(path) == ["file.txt"]


def test_what_a_killed_process_left_is_overwritten(path):
    path.with_name("file.txt.part").write_bytes(b"of a process that was killed, and longer")
    write_atomically(path, lambda file: file.write(b"after"))
    assert path.read_bytes() == b"after"
    assert names(path) == ["file.txt"]


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "file.txt", lambda file: file.write(b"after"))


@pytest.mark.parametrize("durable", [False, True])
def test_a_durable_file_is_on_the_disk_before_it_gets_its_name(path, monkeypatch, durable):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    write_atomically(path, lambda file: file.write(b"after"), durable=durable)
    assert synced == ([b"before"] if durable else [])
    assert path.read_bytes() == b"after"


def test_concurrent_writers_of_a_shared_file_leave_one_whole_content(path):
    contents = [bytes([value]) * 100_000 for value in range(8)]

    def write(content: bytes) -> None:
        for _ in range(5):
            write_atomically(path, lambda file: file.write(content), shared=True, durable=False)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert names(path) == ["file.txt"]


@SHARED
def test_the_usual_permissions_apply(path, shared):
    write_atomically(path, lambda file: file.write(b"after"), shared=shared)
    usual = path.with_name("usual")
    usual.write_bytes(b"")
    assert path.stat().st_mode == usual.stat().st_mode
