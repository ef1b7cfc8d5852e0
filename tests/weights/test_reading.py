import io
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import reading

WEIGHT = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("form", ["safetensors", "archive", "legacy"])
def test_every_format_is_read_whatever_its_name(tmp_path, form):
    path = tmp_path / "weights"
    if form == "safetensors":
        save_file({"weight": WEIGHT}, path)
    else:
        torch.save({"weight": WEIGHT}, path, _use_new_zipfile_serialization=form == "archive")
    assert torch.equal(reading.read_weights(path)["weight"], WEIGHT)


def test_archives_are_mapped_into_memory(tmp_path, monkeypatch):
    asked = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: asked.append(options["mmap"]) or load(*args, **options))
    for new in (True, False):
        torch.save({"weight": WEIGHT}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        reading.read_weights(tmp_path / "a.pt")
    assert asked == [True, False]


def test_a_training_checkpoint_with_numbers_of_numpy_is_read(tmp_path):
    path = tmp_path / "model_final.pth"
    extra = {"lr": np.float64(0.1), "milestones": np.array([3, 5]), "best": np.float32(2), "on": np.bool_(True)}
    torch.save({"model": {"weight": WEIGHT}, "optimizer": {"state": {0: {"step": 7}}}, "scheduler": extra}, path)
    content = reading.read_weights(path)
    assert torch.equal(content["model"]["weight"], WEIGHT)
    assert content["scheduler"]["lr"] == 0.1
    assert content["scheduler"]["milestones"].tolist() == [3, 5]
    assert list(reading.named_tensors(content)) == ["weight"]
    assert np.ndarray not in torch.serialization.get_safe_globals()


def renamed(path, old: bytes, new: bytes):
    """Replace text in the pickle of an archive, as if an older library had written it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


def test_arrays_that_numpy_1_pickled_are_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"weight": np.arange(3), "step": np.int64(4)}, path)
    renamed(path, b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert reading.read_weights(path)["weight"].tolist() == [0, 1, 2]


def test_arrays_of_objects_are_refused(tmp_path):
    torch.save({"weight": np.array([{}, None], dtype=object)}, tmp_path / "objects.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        reading.read_weights(tmp_path / "objects.pth")


def test_torchscript_is_refused_with_the_file_to_take(tmp_path):
    path = tmp_path / "ViT-L-14.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)), path)
    with pytest.raises(CheckpointError, match=r"ViT-L-14.pt is a TorchScript archive.*clip-vit-l14"):
        reading.read_weights(path)


def test_a_web_page_is_recognised(tmp_path):
    (tmp_path / "ovseg.pth").write_text("\n<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(CheckpointError, match="web page, not weights"):
        reading.read_weights(tmp_path / "ovseg.pth")


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_half_a_file_does_not_load(tmp_path, new, share):
    whole = io.BytesIO()
    torch.save({"weight": torch.rand(100, 100)}, whole, _use_new_zipfile_serialization=new)
    path = tmp_path / "half.pth"
    path.write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        reading.read_weights(path)


def test_a_file_without_a_table_is_refused(tmp_path):
    torch.save([WEIGHT], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no table of tensors"):
        reading.read_weights(tmp_path / "list.pt")


def test_tensors_come_out_of_their_tables():
    content = {"epoch": 3, "bias": WEIGHT, "state_dict": {"module.weight": WEIGHT, "note": "x"}, "optimizer": {0: {}}}
    assert sorted(reading.named_tensors(content)) == ["bias", "weight"]
