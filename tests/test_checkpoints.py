import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ovseg_demo import checkpoints, download
from ovseg_demo.checkpoints import Checkpoint
from ovseg_demo.errors import CheckpointError


@pytest.fixture
def entry(tmp_path, monkeypatch) -> Checkpoint:
    """A catalogued file in a folder of its own."""
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    monkeypatch.setattr(download, "FOLDER", tmp_path)
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "tiny.safetensors")
    made = Checkpoint(
        "tiny", "Tiny", "tiny.safetensors", "MIT", False, ("hub:models/owner/repo/folder/tiny.safetensors",)
    )
    known = replace(made, sha256=checkpoints.sha256_of(made.path), size=made.path.stat().st_size)
    monkeypatch.setattr(checkpoints, "catalogue", lambda: {"tiny": known})
    return known


def test_every_bundled_file_is_here_and_verified():
    bundled = [c for c in checkpoints.catalogue().values() if c.bundled]
    assert len(bundled) >= 3
    for checkpoint in bundled:
        assert checkpoints.verify(checkpoint).is_file()
        assert checkpoint.sha256
        assert checkpoint.licence
    assert sum(c.path.stat().st_size for c in bundled) < 110e6


def test_a_good_file_loads(entry):
    assert torch.equal(checkpoints.load_state_dict("tiny")["weight"], torch.ones(2, 3))


def test_an_unknown_id_is_told():
    with pytest.raises(CheckpointError, match="Unknown checkpoint 'nope'; known: mini-image"):
        checkpoints.get("nope")


def test_an_absent_file_is_told(entry):
    entry.path.unlink()
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is missing"):
        checkpoints.load_state_dict("tiny")


def test_a_truncated_file_is_told(entry):
    entry.path.write_bytes(entry.path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        checkpoints.load_state_dict("tiny")


def test_a_changed_file_is_told(entry):
    content = bytearray(entry.path.read_bytes())
    content[-1] ^= 1
    entry.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        checkpoints.load_state_dict("tiny")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_rubbish_under_an_unhashed_name_is_told(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    rubbish = Checkpoint("r", "Rubbish", f"r.{suffix}", "MIT", False, ())
    monkeypatch.setattr(checkpoints, "catalogue", lambda: {"r": rubbish})
    rubbish.path.write_bytes(b"rubbish" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        checkpoints.load_state_dict("r")


def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    evil = Checkpoint("e", "Evil", "e.pt", "MIT", False, ())
    monkeypatch.setattr(checkpoints, "catalogue", lambda: {"e": evil})

    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"weight": Payload()}, evil.path)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        checkpoints.load_state_dict("e")
    assert not (tmp_path / "ran").exists()


def test_strict_loading_names_every_fault():
    module = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=r"1 missing \(bias\); 1 unexpected \(extra\); 1 misshapen \(weight\)"):
        checkpoints.load_strict(module, {"weight": torch.ones(3, 3), "extra": torch.ones(1)}, "file.pt")
    checkpoints.load_strict(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "file.pt")
    assert module.weight.sum() == 6


def test_many_faults_are_shortened():
    state = {f"layer.{i}": torch.ones(1) for i in range(50)}
    with pytest.raises(CheckpointError, match="and 45 more"):
        checkpoints.load_strict(nn.Identity(), state, "file.pt")


def fetch_stub(content: bytes):
    def fetch(repo, name, *, repo_type, local_dir):
        assert (repo, name, repo_type) == ("owner/repo", "folder/tiny.safetensors", "model")
        path = Path(local_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return fetch


def test_a_download_appears_under_its_name(entry, monkeypatch):
    content = entry.path.read_bytes()
    entry.path.unlink()
    monkeypatch.setattr(download, "hf_hub_download", fetch_stub(content))
    assert download.download(entry).read_bytes() == content
    assert [p.name for p in entry.path.parent.iterdir() if p.is_file()] == ["tiny.safetensors"]


def test_a_damaged_file_is_fetched_again(entry, monkeypatch):
    content = entry.path.read_bytes()
    entry.path.write_bytes(b"damaged")
    monkeypatch.setattr(download, "hf_hub_download", fetch_stub(content))
    assert download.download(entry).read_bytes() == content
    monkeypatch.setattr(download, "hf_hub_download", None)
    assert download.download(entry) == entry.path


def test_a_folder_of_ones_own_leaves_the_bundled_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    assert checkpoints.get("mini-text").present
    assert checkpoints.get("clip-vit-b16").path.parent == tmp_path


def test_a_damaged_download_never_appears(entry, monkeypatch):
    entry.path.unlink()
    monkeypatch.setattr(download, "hf_hub_download", fetch_stub(b"damaged"))
    with pytest.raises(CheckpointError, match="arrived damaged"):
        download.download(entry)
    assert not entry.present


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "no room on the disk"),
        (ConnectionError("down"), "cannot be downloaded"),
    ],
)
def test_a_failed_download_is_one_sentence(entry, monkeypatch, error, told):
    def fail(*_, **__):
        raise error

    entry.path.unlink()
    monkeypatch.setattr(download, "hf_hub_download", fail)
    with pytest.raises(CheckpointError, match=told):
        download.download(entry)
    assert not entry.present


def test_a_bundled_file_is_not_downloaded(entry):
    entry.path.unlink()
    with pytest.raises(CheckpointError, match="not published on a hub"):
        download.download(replace(entry, sources=("build:python -m train.mini.convert",)))


def test_the_catalogue_is_well_formed():
    entries = json.loads((checkpoints._CATALOGUE).read_text())
    assert len({e["id"] for e in entries}) == len({e["file"] for e in entries}) == len(entries)
    assert all(source.split(":")[0] in ("hub", "build") for e in entries for source in e["sources"])
