import json
import re
import shutil
from contextlib import suppress

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ovseg_demo.cli import main
from ovseg_demo.methods import registry
from ovseg_demo.ui import gallery
from ovseg_demo.weights import catalogue
from tests.helpers.toy_method import TOY

PIZZA = str(gallery.FOLDER / "pizza.jpg")


@pytest.fixture
def shared_engine(engine, monkeypatch):
    """The command line with the session's engine, so that photos are encoded once."""
    monkeypatch.setattr("ovseg_demo.cli.Engine", lambda device: engine)


def run(*arguments) -> int:
    return main(list(map(str, arguments)))


def test_a_photo_becomes_three_files(shared_engine, tmp_path, capsys):
    photo = gallery.FOLDER / "pizza.jpg"
    given = ["--vocabulary", "pizza, horse, bus", "--granularity", 1, "--proposals", "fast"]
    assert run("segment", photo, *given, "--out", tmp_path) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pizza.json", "pizza.labels.png", "pizza.overlay.png"]
    content = json.loads((tmp_path / "pizza.json").read_text())
    assert content["method"] == "ovseg-sam-mini"
    assert content["granularity"] == 1
    assert "pizza" in capsys.readouterr().out


def test_words_that_no_pixel_shows_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, TOY.id, TOY)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")

    def printed(*arguments) -> str:
        photo = tmp_path / "a.png"
        assert run("segment", photo, "--method", TOY.id, "--device", "cpu", "--out", tmp_path / "out", *arguments) == 0
        return capsys.readouterr().out.removeprefix(f"{photo}: ").strip()

    assert printed("--vocabulary", "cat, dog, cow", "--border", 0) == "cat 100%; not found: dog, cow"
    many = "cat, dog, cow, bus, tree, sky"
    assert printed("--vocabulary", many, "--border", 0) == "cat 100%; not found: dog, cow, bus and 2 more"
    assert printed("--vocabulary", "cat", "--border", 0) == "cat 100%"
    assert printed("--vocabulary", many, "--border", 9) == "nothing found"


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
    ("arguments", "message"),
    [
        (["segment", "absent.jpg", "--vocabulary", "cat"], "There is no image at absent.jpg."),
        (["segment", "x.jpg", "--vocabulary", " , "], "Type at least one word"),
        (["segment", "x.jpg", "--vocabulary", "cat", "--granularity", "2"], "between 0 and 1"),
        (["segment", PIZZA, "--vocabulary", "cat", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["checkpoints", "--download", "nope"], "Unknown checkpoint 'nope'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_results_are_not_photos(shared_engine, tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for _ in range(2):
        assert run("segment", tmp_path, "--vocabulary", "cat, dog", "--out", tmp_path / "results") == 0
        assert "1 of 1 photos" in capsys.readouterr().err


def test_an_unavailable_method_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("segment", gallery.FOLDER / "pizza.jpg", "--vocabulary", "a, b", "--method", "ovseg-sam-vitl14") == 1
    assert "--download ovseg-clip-vit-l14" in capsys.readouterr().err


def test_methods_and_checkpoints_are_listed(capsys):
    assert run("methods") == 0
    listed = capsys.readouterr().out
    assert re.search(r"^ovseg-sam-mini +ready  ", listed, re.MULTILINE)
    assert re.search(r"^ovseg-sam-vitb16 +needs weights  ", listed, re.MULTILINE)
    assert run("checkpoints", "--verify") == 0
    assert "bundled, verified" in capsys.readouterr().out


def test_an_unwritable_folder_is_refused(shared_engine, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    photo = shutil.copy(gallery.FOLDER / "pizza.jpg", tmp_path)
    assert run("segment", photo, "--vocabulary", "pizza, bus", "--out", tmp_path / "file") == 1
    assert "Cannot write into" in capsys.readouterr().err


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A checkpoints folder of one's own, and a file that passes for OpenAI's CLIP ViT-L/14."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path / "weights")
    file = tmp_path / "from a friend.bin"
    save_file({"visual.conv1.weight": torch.zeros(1024, 3, 14, 14)}, file)
    return file


def test_checkpoints_show_what_their_papers_report(capsys):
    assert run("checkpoints") == 0
    listed = capsys.readouterr().out
    assert re.search(
        r"^ovseg-swinb-vitl14 +absent +ovseg_swinbase_vitL14_ft_mpt\.pth +CC-BY-NC-4\.0$", listed, re.MULTILINE
    )
    assert "mean IoU in its paper: A-847 9.0, PC-459 12.4, A-150 29.6, PC-59 55.7, PAS-20 94.5" in listed


def test_a_checkpoint_is_taken_from_a_file_and_verified(weights, capsys):
    assert run("checkpoints", "--download", "clip-vit-l14", "--from", weights) == 0
    path = catalogue.FOLDER / "clip-vit-l14.safetensors"
    assert capsys.readouterr().out == f"{path}\n"
    assert run("checkpoints", "--verify") == 0
    assert re.search("^clip-vit-l14 +present, readable .nothing is published", capsys.readouterr().out, re.MULTILINE)
    path.write_bytes(path.read_bytes()[:-1])
    assert run("checkpoints", "--verify") == 1
    assert re.search(r"^clip-vit-l14 +DAMAGED: clip-vit-l14\.safetensors cannot", capsys.readouterr().out, re.MULTILINE)


def test_a_file_of_another_checkpoint_is_refused(weights, capsys):
    assert run("checkpoints", "--download", "ovseg-swinb-vitl14", "--from", weights) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: from a friend.bin is not OVSeg, Swin-B and CLIP ViT-L/14: it looks like CLIP ViT-L/14"
    )
    assert error.count("\n") == 1
    assert not catalogue.FOLDER.exists()


def test_a_file_needs_to_be_named(weights, capsys):
    with pytest.raises(SystemExit) as ended:
        run("checkpoints", "--from", weights)
    assert ended.value.code == 2
    assert "--from needs --download ID" in capsys.readouterr().err


def test_an_interrupted_download_says_how_to_go_on(weights, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ovseg_demo.weights.download.download", interrupt)
    assert run("checkpoints", "--download", "clip-vit-l14") == 130
    assert capsys.readouterr().err == "Interrupted; the same command goes on from there.\n"


@pytest.mark.parametrize(
    ("granularity", "message"),
    [("banana", "must be a number between 0 and 1, or auto; got 'banana'"), ("2", "between 0 and 1")],
)
def test_a_granularity_that_is_no_number_is_refused(granularity, message, capsys, tmp_path):
    with suppress(SystemExit):
        assert run("segment", tmp_path, "--vocabulary", "cat", "--granularity", granularity) == 1
    assert message in capsys.readouterr().err


def test_an_ensemble_is_refused_where_it_changes_nothing(capsys, tmp_path):
    assert run("segment", tmp_path, "--vocabulary", "cat", "--ensemble", "0.5") == 1
    assert "ovseg-sam-mini has no option 'ensemble'; these have it: ovseg-maskformer-r101c," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rejection", "8"], "ovseg-sam-mini has no option 'rejection'; these have it: sed-mini, sed-convnext-b"),
        (["--method", "sed-mini", "--rejection", "8,8"], "one whole number of at least 1, or three, one for each"),
        (["--method", "sed-mini", "--rejection", "8,8"], "; got '8,8'."),
        (["--method", "sed-mini", "--rejection", "0"], "one whole number of at least 1"),
        (["--method", "sed-mini", "--rejection", "few"], "one whole number of at least 1"),
        (["--seen", "cat"], "ovseg-sam-mini has no option 'seen'"),
        (["--method", "tagclip-mini", "--seen", "|"], "Type at least one word"),
        (["--no-trusty"], "ovseg-sam-mini has no option 'trusty'"),
        (["--recipe", "paper"], "ovseg-sam-mini has no option 'recipe'"),
        (["--recipe", "soup"], "invalid choice: 'soup'"),
        (["--keep-aspect"], "ovseg-sam-mini has no option 'keep_aspect'"),
        (["--method", "sed-mini", "--keep-aspect"], "sed-mini has no option 'keep_aspect'"),
    ],
)
def test_options_are_checked_and_refused_where_they_change_nothing(options, message, capsys, tmp_path):
    with suppress(SystemExit):
        assert run("segment", tmp_path, "--vocabulary", "cat", *options) == 1
    assert message in capsys.readouterr().err


def test_automatic_granularity_says_why(shared_engine, tmp_path, capsys):
    photo = gallery.FOLDER / "pizza.jpg"
    assert run("segment", photo, "--vocabulary", "pizza, table", "--granularity", "auto", "--out", tmp_path) == 0
    assert re.search(r"granularity 0\.\d, because its ", capsys.readouterr().err)
    content = json.loads((tmp_path / "pizza.json").read_text())
    assert content["granularity_reason"].startswith(f"{content['granularity']}, because")
