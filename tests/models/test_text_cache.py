"""Text embeddings on disk: exact, bounded, shared, and never in the way."""

import errno
import io
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ovseg_demo.models import text_cache
from ovseg_demo.models.text_cache import TextEmbeddingCache, cache_folder

TEMPLATES = ("a {}", "the {}")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def store() -> TextEmbeddingCache:
    return TextEmbeddingCache("model 01", TEMPLATES)


def embedding(seed: int = 0, width: int = 8) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(seed))


def files(place: Path) -> list[Path]:
    return sorted(place.iterdir())


def test_what_is_kept_comes_back_exactly(store, place):
    assert store.get(["cat"]) == {}
    store.put({"cat": embedding(1), "小猫 🐈": embedding(2).mT.contiguous().mT})
    for one in (store, TextEmbeddingCache("model 01", TEMPLATES)):
        found = one.get(["小猫 🐈", "dog", "cat", "cat"])
        assert found.keys() == {"小猫 🐈", "cat"}
        assert torch.equal(found["cat"], embedding(1))
        assert torch.equal(found["小猫 🐈"], embedding(2))
    assert len(files(place)) == 2


def test_no_word_stands_in_a_name_or_file(store, place):
    store.put({"my secret": embedding()})
    (file,) = files(place)
    assert "secret" not in file.name
    assert b"secret" not in file.read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        ("model 02", TEMPLATES),
        ("model 01", TEMPLATES[::-1]),
        ("model 01", TEMPLATES[:1]),
        ("model", ("01", *TEMPLATES)),
    ],
)
def test_models_and_templates_are_kept_apart(store, other):
    store.put({"cat": embedding()})
    assert TextEmbeddingCache(*other).get(["cat"]) == {}


def test_values_can_be_changed_by_who_gets_them(store):
    store.put({"cat": embedding()})
    store.get(["cat"])["cat"].zero_()
    assert torch.equal(store.get(["cat"])["cat"], embedding())


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[:5], lambda b: b[:-4], lambda b: b + b[:4], lambda b: b[:-1] + bytes([b[-1] ^ 1])],
)
def test_a_damaged_file_is_absent_and_replaced(store, place, damage):
    store.put({"cat": embedding(), "dog": embedding(1)})
    path = store._path("cat")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"):
        assert store.get(["cat", "dog"]).keys() == {"dog"}
    store.put({"cat": embedding()})
    assert torch.equal(store.get(["cat"])["cat"], embedding())


def test_trouble_is_told_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "file"))
    store = TextEmbeddingCache("model 01", TEMPLATES)
    with pytest.warns(UserWarning, match="cannot be kept in .*file"):
        store.put({"cat": embedding()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put({"cat": embedding()})
        assert store.get(["cat"]) == {}


def test_a_full_disk_leaves_nothing_half_written(store, place, monkeypatch):
    store.put({"cat": embedding()})

    class FullDisk(io.FileIO):
        def write(self, content: bytes) -> int:
            super().write(content[:7])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk(path, mode))
    with pytest.warns(UserWarning, match="No space left"):
        store.put({"dog": embedding(1)})
    monkeypatch.undo()
    assert len(files(place)) == 1
    assert store.get(["cat", "dog"]).keys() == {"cat"}
    store.put({"dog": embedding(1)})
    assert store.get(["cat", "dog"]).keys() == {"cat", "dog"}


def test_what_may_only_be_read_is_read(store, monkeypatch):
    """As with a folder that the person who runs the demo does not own."""
    store.put({"cat": embedding()})

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "utime", denied)
    monkeypatch.setattr(text_cache, "write_atomically", denied)
    with pytest.warns(UserWarning, match="Permission denied"):
        store.put({"dog": embedding()})
    assert torch.equal(store.get(["cat"])["cat"], embedding())


def test_the_folder_can_be_deleted_while_it_is_used(store, place):
    store.put({"cat": embedding()})
    for path in files(place):
        path.unlink()
    place.rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get(["cat"]) == {}
        store.put({"cat": embedding()})
    assert store.get(["cat"]).keys() == {"cat"}


def test_the_least_recently_used_go_when_there_are_too_many(place):
    size = 32 + embedding().nbytes
    store = TextEmbeddingCache("model 01", TEMPLATES, limit_bytes=10 * size)
    for index in range(10):
        store.put({f"word {index}": embedding(index)})
        os.utime(store._path(f"word {index}"), (index, index))
    assert len(files(place)) == 10
    store.get(["word 0"])
    (place / "left by a crash").write_bytes(b"x" * size)
    os.utime(place / "left by a crash", (0, 0))
    store.put({"new": embedding()})
    kept = store.get(["new", *(f"word {index}" for index in range(10))])
    assert kept.keys() == {"new", "word 0", *(f"word {index}" for index in range(3, 10))}
    assert len(files(place)) == 9


def _use(number: int) -> list[int]:
    """Write and read words that others write, read and clear at the same time; the faults seen."""
    store = TextEmbeddingCache("model 01", TEMPLATES, limit_bytes=20 * (32 + 2 * 1000 * 4))
    faults, until = [], time.monotonic() + 0.5
    while time.monotonic() < until:
        for index in range(number, number + 30):
            store.put({f"word {index}": embedding(index, 1000)})
            found = store.get([f"word {index - 1}"]).get(f"word {index - 1}")
            if found is not None and not torch.equal(found, embedding(index - 1, 1000)):
                faults.append(index)
    return faults


@pytest.mark.filterwarnings("error")
def test_several_stores_share_the_folder(place):
    """As those of several processes do: all they have in common is the disk."""
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_use, (0, 10, 10, 20))) == [[]] * 4
    assert 0 < len(files(place)) <= 20


def test_the_folder_is_among_the_persons_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("OVSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ovseg-demo" / "texts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "ovseg-demo" / "texts"
