"""The smoke run of the mini model on a made-up data folder: whole, again, interrupted and restricted."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import error_line
from tests.helpers.pipelines import write_mini_heads_data
from train.mini.heads import __main__ as command

pytestmark = pytest.mark.usefixtures("remembered_texts")


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / "mini-heads.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("mini.heads").data


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("mini.heads").out


def shared(whole: Path) -> tuple[str, str]:
    return "--features", str(whole / "features")


def test_a_run_leaves_its_configuration_logs_and_weights(whole):
    files = sorted(
        str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file() and path.parent.name != "windows"
    )
    made = ["scene_train", "street_train", "told_train", "told_train-nouns", "voc_train"]
    stages = [f"{stage}/{file}" for stage in ("dense", "projection") for file in ("config.json", "log.csv", "state.pt")]
    features = [f"features/{name}.safetensors" for name in made]
    assert files == sorted(["config.json", *stages, "features/config.json", *features, "mini-heads.safetensors"])
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"scene_train": 2, "street_train": 2, "told_train": 3, "voc_train": 3}
    assert config["restricted"] is False
    assert config["dense_schedule"]["steps"] == config["projection_schedule"]["steps"] == 6
    for stage, losses in (("projection", ["words", "captions", "distillation"]), ("dense", ["places"])):
        head, *lines = (whole / stage / "log.csv").read_text().splitlines()
        assert head.split(",") == ["step", "seconds", "learning_rate", "loss", *losses]
        assert [line.split(",")[0] for line in lines] == ["2", "4", "6"]


def test_the_weights_fit_the_demo(whole):
    stored = load_file(whole / "mini-heads.safetensors")
    wanted = command.Heads().state_dict()
    assert {name: value.shape for name, value in stored.items()} == {name: v.shape for name, v in wanted.items()}
    for name in ("projection", "dense"):
        assert 0.01 < stored[f"{name}_mean"].norm() < 1
        assert stored[f"{name}_scale"] > 1


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


def test_features_of_other_photos_are_refused(whole, data, tmp_path, capsys):
    write_mini_heads_data(tmp_path / "data")
    captions = {"a": ["a cat"]}
    (tmp_path / "data/told_train/captions.json").write_text(json.dumps(captions))
    assert run(tmp_path / "data", tmp_path / "out", *shared(whole)) == 1
    assert "features holds a run with other settings (photos was" in error_line(capsys)


def test_unusable_arguments_are_told(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        run(data, tmp_path, "--precision", "half")
    assert raised.value.code == 2
    assert "invalid choice: 'half'" in capsys.readouterr().err


def test_damaged_features_are_told(whole, data, tmp_path, capsys):
    for path in (whole / "features").glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "voc_train.safetensors").write_bytes(b"damaged")
    assert run(data, tmp_path / "out", "--features", str(tmp_path)) == 1
    assert error_line(capsys).endswith("voc_train.safetensors is damaged; delete it, and it is made again.")


def test_an_unreadable_photo_is_named(data, tmp_path, capsys):
    folder = tmp_path / "data"
    write_mini_heads_data(folder)
    (folder / "scene_train/images/sea1.jpg").write_bytes(b"no photo")
    assert run(folder, tmp_path / "out") == 1
    assert "scene_train/images/sea1.jpg cannot be used" in error_line(capsys)
