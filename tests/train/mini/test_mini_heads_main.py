"""The smoke run of the mini model on a made-up data folder: whole, again, interrupted and restricted."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.mini_data import KEYS, VOC, two_halves, write_described_set, write_labelled_set
from train.mini.heads import __main__ as command

pytestmark = pytest.mark.usefixtures("remembered_texts")

STREET = ["road", "sky", "snow"]


def make(folder: Path) -> Path:
    """Four sets, one of each kind; those with masks show restricted classes too."""
    cat, sofa = VOC.index("cat"), VOC.index("sofa")
    masks = {KEYS[0]: two_halves(cat, 20), KEYS[1]: two_halves(cat, sofa), KEYS[2]: two_halves(14, 255)}
    write_labelled_set(folder / "voc_train", VOC, masks, "cat_mirror")
    write_labelled_set(folder / "street_train", STREET, {key: two_halves(0, 2) for key in KEYS[:2]}, "tram_bus_street")
    told = ["A pizza on a table .", "somebody bakes a pizza", "food"]
    write_described_set(
        folder / "told_train", "captions", {"a": told, "b": ["Two dogs .", "dogs and a bus"], "c": ["one"]}
    )
    write_described_set(folder / "scene_train", "tags", {"sea1": ["sea"], "snow1": ["snow"]}, "gull_over_beach")
    return folder


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / "mini-heads.safetensors").read_bytes()).hexdigest()


def rows(out: Path, stage: str) -> list[list[str]]:
    """log.csv less its seconds."""
    return [line.split(",")[:1] + line.split(",")[2:] for line in (out / stage / "log.csv").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, remembered_texts, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert run(data, out) == 0
    return out


def shared(whole: Path) -> tuple[str, str]:
    return "--features", str(whole / "features")


def test_a_run_leaves_its_configuration_logs_and_weights(whole):
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    made = ["scene_train", "street_train", "told_train", "told_train-nouns", "voc_train"]
    stages = [f"{stage}/{file}" for stage in ("dense", "projection") for file in ("config.json", "log.csv", "state.pt")]
    features = [f"features/{name}.safetensors" for name in made]
    assert files == sorted(["config.json", *stages, "features/config.json", *features, "mini-heads.safetensors"])
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"scene_train": 2, "street_train": 2, "told_train": 3, "voc_train": 3}
    assert config["restricted"] is False
    assert config["dense_schedule"]["steps"] == config["projection_schedule"]["steps"] == 6
    for stage, losses in (("projection", ["words", "captions", "distillation"]), ("dense", ["places"])):
        head, *lines = rows(whole, stage)
        assert head == ["step", "learning_rate", "loss", *losses]
        assert [line[0] for line in lines] == ["2", "4", "6"]
        assert np.isfinite(np.array(lines, float)).all()


def test_the_weights_fit_the_demo(whole):
    stored = load_file(whole / "mini-heads.safetensors")
    wanted = command.Heads().state_dict()
    assert {name: value.shape for name, value in stored.items()} == {name: v.shape for name, v in wanted.items()}
    assert all(value.isfinite().all() for value in stored.values())
    for name in ("projection", "dense"):
        assert 0.01 < stored[f"{name}_mean"].norm() < 1
        assert stored[f"{name}_scale"] > 1


def test_the_last_line_is_for_the_catalogue(whole, data, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.*") if path.name != "mini-heads.safetensors"}
    hashed = digest(whole)
    assert run(data, whole) == 0
    told = capsys.readouterr().out
    assert told.startswith((whole / "config.json").read_text())
    size = (whole / "mini-heads.safetensors").stat().st_size
    assert json.loads(told.splitlines()[-1]) == {"id": "mini-heads", "sha256": hashed, "size": size}
    assert digest(whole) == hashed
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"log.csv"}, "a run that has ended is not trained again"


@pytest.mark.parametrize(("stage", "step"), [("projection head", 3), ("dense head", 0)])
def test_an_interrupted_run_ends_as_one_that_was_not(whole, data, tmp_path, monkeypatch, capsys, stage, step):
    fit = command.fit
    assert command.dense.fit is fit

    def interrupted(*arguments, title, **options):
        fit(*arguments, title=title, stop_after=step if title == stage else None, **options)
        if title == stage:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        for module in (command, command.dense):
            patched.setattr(module, "fit", interrupted)
        assert run(data, tmp_path, *shared(whole)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "mini-heads.safetensors").exists()
    torch.randn(7)  # another process has drawn other numbers by now
    assert run(data, tmp_path, *shared(whole)) == 0
    assert digest(tmp_path) == digest(whole)
    assert [rows(tmp_path, stage) for stage in ("projection", "dense")] == [
        rows(whole, stage) for stage in ("projection", "dense")
    ]


def test_another_seed_gives_other_weights(whole, data, tmp_path):
    assert run(data, tmp_path, *shared(whole), "--seed", "1") == 0
    one, other = (load_file(folder / "mini-heads.safetensors") for folder in (whole, tmp_path))
    alike = {name for name in one if torch.equal(one[name], other[name])}
    assert not {"dense.out.weight", "projection.linear.weight"} & alike


def test_a_restricted_run_shows_nothing_that_is_kept_from_it(whole, data, tmp_path, monkeypatch):
    seen = []

    class Listening(command.Lexicon):
        def __init__(self, words, tower, restricted):
            super().__init__(words, tower, restricted)
            seen.append((restricted, set(self.words)))

    monkeypatch.setattr(command, "Lexicon", Listening)
    batches = []
    original = command.regions.RegionBatches.__call__

    def drawing(data, generator):
        batches.append([data._lexicon.words[word] for word in original(data, generator)["words"]])
        return original(data, generator)

    monkeypatch.setattr(command.regions.RegionBatches, "__call__", drawing)
    matched = load_file(whole / "features/told_train-nouns.safetensors")["classes"]
    assert "pizza" in {command.NOUNS[row] for row in matched}
    assert run(data, tmp_path, *shared(whole), "--restricted") == 0
    assert {restricted for restricted, _ in seen} == {True}
    for _, words in seen:
        assert not words & {"sofa", "snow", "pizza"}
        assert {"cat", "road", "sea"} <= words
    drawn = {word for batch in batches for word in batch}
    assert {"cat", "road", "sea"} <= drawn
    assert not drawn & {"sofa", "snow", "pizza"}
    assert digest(tmp_path) != digest(whole)
    assert json.loads((tmp_path / "config.json").read_text())["restricted"] is True


def test_other_settings_in_one_folder_are_refused(whole, data, capsys):
    assert run(data, whole, "--restricted") == 1
    assert "other settings (restricted was False, now True); choose another --out." in error_line(capsys)
    assert run(data, whole, "--seed", "3") == 1
    assert "seed" in error_line(capsys)


def test_features_of_other_photos_are_refused(whole, data, tmp_path, capsys):
    make(tmp_path / "data")
    captions = {"a": ["a cat"]}
    (tmp_path / "data/told_train/captions.json").write_text(json.dumps(captions))
    assert run(tmp_path / "data", tmp_path / "out", *shared(whole)) == 1
    assert "features holds a run with other settings (photos was" in error_line(capsys)


def test_missing_data_is_told(tmp_path, capsys):
    assert run(tmp_path / "absent", tmp_path / "out") == 1
    assert "absent holds no folder NAME_train" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_seed_below_zero_is_told(data, tmp_path, capsys):
    assert run(data, tmp_path, "--seed", "-1") == 1
    assert error_line(capsys) == "error: seed is -1, but must be 0 or more."


def test_unusable_arguments_are_told(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        run(data, tmp_path, "--precision", "half")
    assert raised.value.code == 2
    assert "invalid choice: 'half'" in capsys.readouterr().err


def test_damaged_features_are_told(whole, data, tmp_path, capsys):
    for path in (whole / "features").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "voc_train.safetensors").write_bytes(b"damaged")
    assert run(data, tmp_path / "out", "--features", str(tmp_path)) == 1
    assert error_line(capsys).endswith("voc_train.safetensors is damaged; delete it, and it is made again.")


def test_an_unreadable_photo_is_named(data, tmp_path, capsys):
    folder = make(tmp_path / "data")
    (folder / "scene_train/images/sea1.jpg").write_bytes(b"no photo")
    assert run(folder, tmp_path / "out") == 1
    assert "scene_train/images/sea1.jpg cannot be used" in error_line(capsys)
