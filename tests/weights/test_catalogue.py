import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import catalogue, loading
from ovseg_demo.weights.catalogue import Checkpoint


@pytest.fixture
def entry(tmp_path, monkeypatch) -> Checkpoint:
    """A catalogued file in a folder of its own."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "tiny.safetensors")
    made = Checkpoint(
        "tiny", "Tiny", "tiny.safetensors", "MIT", False, ("hub:models/owner/repo/folder/tiny.safetensors",)
    )
    known = replace(made, sha256=catalogue.sha256_of(made.path), size=made.path.stat().st_size)
    monkeypatch.setattr(catalogue, "entries", lambda: {"tiny": known})
    return known


def test_every_bundled_file_is_here_and_verified():
    bundled = [c for c in catalogue.entries().values() if c.bundled]
    assert len(bundled) >= 3
    for checkpoint in bundled:
        assert catalogue.verify(checkpoint).is_file()
        assert checkpoint.sha256
        assert checkpoint.licence
    assert sum(c.path.stat().st_size for c in bundled) < 110e6


def test_a_good_file_loads(entry):
    assert torch.equal(loading.load_state_dict("tiny")["weight"], torch.ones(2, 3))


def test_an_unknown_id_is_reported():
    with pytest.raises(CheckpointError, match="Unknown checkpoint 'nope'; known: mini-image"):
        catalogue.get("nope")


def test_an_absent_file_is_reported(entry):
    entry.path.unlink()
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is missing"):
        loading.load_state_dict("tiny")


def test_a_truncated_file_is_reported(entry):
    entry.path.write_bytes(entry.path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        loading.load_state_dict("tiny")


def test_a_changed_file_is_reported(entry):
    content = bytearray(entry.path.read_bytes())
    content[-1] ^= 1
    entry.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        loading.load_state_dict("tiny")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_rubbish_under_an_unhashed_name_is_reported(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    rubbish = Checkpoint("r", "Rubbish", f"r.{suffix}", "MIT", False, ())
    monkeypatch.setattr(catalogue, "entries", lambda: {"r": rubbish})
    rubbish.path.write_bytes(b"rubbish" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        loading.load_state_dict("r")


def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    evil = Checkpoint("e", "Evil", "e.pt", "MIT", False, ())
    monkeypatch.setattr(catalogue, "entries", lambda: {"e": evil})

    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"weight": Payload()}, evil.path)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        loading.load_state_dict("e")
    assert not (tmp_path / "ran").exists()


def test_strict_loading_names_every_fault():
    module = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=r"1 missing \(bias\); 1 unexpected \(extra\); 1 misshapen \(weight\)"):
        loading.load_strict(module, {"weight": torch.ones(3, 3), "extra": torch.ones(1)}, "file.pt")
    loading.load_strict(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "file.pt")
    assert module.weight.sum() == 6


def test_many_faults_are_shortened():
    state = {f"layer.{i}": torch.ones(1) for i in range(50)}
    with pytest.raises(CheckpointError, match="and 45 more"):
        loading.load_strict(nn.Identity(), state, "file.pt")


def test_a_folder_of_ones_own_leaves_the_bundled_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    assert catalogue.get("mini-text").present
    assert catalogue.get("clip-vit-b16").path.parent == tmp_path


@pytest.mark.parametrize(
    ("digits", "message"), [("", None), ("abcdef", "md5 begins with .* instead of the published abcdef")]
)
def test_the_first_digits_of_the_md5_are_compared(entry, digits, message):
    true = hashlib.md5(entry.path.read_bytes()).hexdigest()[:6]
    known = replace(entry, sha256=None, size=None, md5_prefix=digits or true)
    if message:
        with pytest.raises(CheckpointError, match=message):
            catalogue.check_published(entry.path, known)
    else:
        catalogue.check_published(entry.path, known)


def write(path: Path, shapes: dict[str, list[int]]) -> Path:
    torch.save({"model": {name: torch.empty(shape) for name, shape in shapes.items()}, "iteration": 9}, path)
    return path


@pytest.mark.parametrize("checkpoint", [c for c in catalogue.entries().values() if c.shapes], ids=lambda c: c.id)
def test_a_file_is_recognised_by_its_tensors(checkpoint, tmp_path):
    catalogue.check_content(write(tmp_path / "own.pth", checkpoint.shapes), checkpoint)
    other = catalogue.get(
        "ovseg-swinb-vitl14" if checkpoint.shapes.keys() == {"visual.conv1.weight"} else "clip-vit-b16"
    )
    with pytest.raises(
        CheckpointError, match=re.escape(f"other.pth is not {checkpoint.title}: it looks like")
    ) as message:
        catalogue.check_content(write(tmp_path / "other.pth", other.shapes), checkpoint)
    assert f"{other.title} ({other.id})" in str(message.value)


@pytest.mark.parametrize(
    ("shapes", "message"), [({}, "holds no tensors"), ({"head.bias": [3]}, "it lacks visual.conv1.weight")]
)
def test_a_file_of_something_else_is_reported(tmp_path, shapes, message):
    with pytest.raises(CheckpointError, match=message):
        catalogue.check_content(write(tmp_path / "a.pth", shapes), catalogue.get("clip-vit-l14"))


@pytest.mark.parametrize("checkpoint", ["ovseg-r101c-vitb16", "ovseg-swinb-vitl14"])
def test_what_ovseg_publishes_is_catalogued(checkpoint):
    entry = catalogue.get(checkpoint)
    assert list(entry.paper) == ["A-847", "PC-459", "A-150", "PC-59", "PAS-20"]
    assert len(entry.md5_prefix) == 6
    assert entry.licence == "CC-BY-NC-4.0"


def test_the_catalogue_is_well_formed():
    entries = json.loads((catalogue._CATALOGUE).read_text())
    assert len({e["id"] for e in entries}) == len({e["file"] for e in entries}) == len(entries)
    assert all(source.split(":")[0] in ("hub", "drive", "github", "build") for e in entries for source in e["sources"])
