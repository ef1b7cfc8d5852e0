import json
import shutil

import pytest
from PIL import Image

from ovseg_demo import gallery
from ovseg_demo.cli import main

PIZZA = str(gallery.FOLDER / "pizza.jpg")


@pytest.fixture
def shared_engine(engine, monkeypatch):
    """The command line with the session's engine, so that photos are encoded once."""
    monkeypatch.setattr("ovseg_demo.cli.Engine", lambda device: engine)


def run(*arguments) -> int:
    return main(list(map(str, arguments)))


def test_a_photo_becomes_three_files(shared_engine, tmp_path, capsys):
    photo = gallery.FOLDER / "pizza.jpg"
    assert run("segment", photo, "--vocabulary", "pizza, horse, bus", "--out", tmp_path, "--granularity", 1) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pizza.json", "pizza.labels.png", "pizza.overlay.png"]
    content = json.loads((tmp_path / "pizza.json").read_text())
    assert content["method"] == "ovseg-sam-mini"
    assert content["granularity"] == 1
    assert "pizza" in capsys.readouterr().out


def test_folders_globs_and_broken_files(shared_engine, tmp_path, capsys):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(photos / "a.png")
    Image.new("RGB", (9, 9)).save(photos / "deep" / "a.png")
    (photos / "broken.jpg").write_bytes(b"no")
    (photos / "notes.txt").write_text("no photo")
    out = tmp_path / "out"
    assert run("segment", photos, photos / "*.png", "--vocabulary", "cat, dog", "--out", out) == 1
    captured = capsys.readouterr()
    assert "broken.jpg: This file is not an image" in captured.err
    assert "2 of 3 photos written" in captured.err
    assert {p.name for p in out.glob("*.json")} == {"a.json", "a-2.json"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["segment", "absent.jpg", "--vocabulary", "cat"], "There is no image at absent.jpg."),
        (["segment", "x.jpg", "--vocabulary", " , "], "Type at least one word"),
        (["segment", "x.jpg", "--vocabulary", "cat", "--granularity", "2"], "between 0 and 1"),
        (["segment", PIZZA, "--vocabulary", "cat", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["checkpoints", "--download", "nope"], "Unknown checkpoint 'nope'"),
    ],
)
def test_bad_input_is_one_line(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_results_are_not_photos(shared_engine, tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for _ in range(2):
        assert run("segment", tmp_path, "--vocabulary", "cat, dog", "--out", tmp_path / "results") == 0
        assert "1 of 1 photos" in capsys.readouterr().err


def test_an_unavailable_method_is_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("segment", gallery.FOLDER / "pizza.jpg", "--vocabulary", "a, b", "--method", "ovseg-sam-vitl14") == 1
    assert "--download ovseg-clip-vit-l14" in capsys.readouterr().err


def test_methods_and_checkpoints_are_listed(capsys):
    assert run("methods") == 0
    listed = capsys.readouterr().out
    assert "ovseg-sam-mini       ready" in listed
    assert "ovseg-sam-vitb16     needs weights" in listed
    assert run("checkpoints", "--verify") == 0
    assert "bundled, verified" in capsys.readouterr().out


def test_an_unwritable_folder_is_told(shared_engine, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    photo = shutil.copy(gallery.FOLDER / "pizza.jpg", tmp_path)
    assert run("segment", photo, "--vocabulary", "pizza, bus", "--out", tmp_path / "file") == 1
    assert "Cannot write into" in capsys.readouterr().err
