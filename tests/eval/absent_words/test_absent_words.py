import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.absent_words import __main__ as command
from eval.absent_words.vocabularies import KINDS
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import MethodOptions
from tests.helpers import evaluation_fakes as fakes


@pytest.fixture
def root(tmp_path) -> Path:
    """Three photos in a labelled folder of four classes."""
    root = tmp_path / "pets"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(3):
        labels = np.full((6, 8), 2)
        labels[:, : 3 + number] = 0
        fakes.store(root, f"photo {number}", labels, labels)
    (root / "classes.json").write_text(json.dumps(["cat", "dog", "background", "sky"]))
    return root


@pytest.fixture
def run(monkeypatch, root, tmp_path):
    """The command on the folder; returns the status, the reports and the methods that ran."""
    built = []

    def build(_):
        built.append(fakes.Drawer(["cat", "dog", None], {"cat": 0.9, "dog": 0.1, "sky": 0.2}))
        return built[-1]

    for name in ("drawer", "other-drawer"):
        monkeypatch.setitem(registry.REGISTRY, name, MethodSpec(name, name, "", (), build, MethodOptions))
    threads = torch.get_num_threads()

    def run(*arguments) -> tuple[int, list[Path], int]:
        built.clear()
        typed = ["--root", root, "--method", "drawer", "--out", tmp_path / "out", *arguments]
        status = command.main(list(map(str, typed)))
        return status, sorted(tmp_path.rglob("report.json")), sum(len(each.shown) for each in built)

    yield run
    torch.set_num_threads(threads)


def test_the_command_reports(run, tmp_path, capsys):
    status, (path,), shown = run()
    assert (status, shown) == (0, 9)
    content = json.loads(path.read_text())
    assert (content["photos"], content["measured"], content["settings"]["set"]) == (3, 3, "pets")
    assert [content["kinds"][kind]["labelled"] for kind in KINDS] == [0.5, 0, 0]
    assert content["kinds"]["absent"]["foreground_miou"] is None
    text = path.with_name("report.md").read_text()
    assert "| own+absent | 100.00 | 100.00 | 50.00 | 0.00 | 0.00 | 100.00 | 0.00 | 100.00 |" in text
    assert "| own+absent | the photo's own words and as many absent ones | 3 | 6 |" in text
    assert capsys.readouterr().out.count("| drawer |") == 3
    with Image.open(path.with_name("reliability.png")) as picture:
        assert picture.size == (1000, 500)


def test_a_finished_run_asks_for_nothing_and_reports_the_same(run):
    _, (path,), _ = run()
    before = path.read_text()
    status, paths, shown = run()
    assert (status, paths, shown) == (0, [path], 0)
    assert path.read_text() == before


def test_a_limit_and_a_part_cut_the_photos_and_a_seed_is_a_setting(run, monkeypatch):
    assert run("--limit", 2)[2] == 6
    assert run()[2] == 3, "what was finished under the limit stays finished"
    assert len(run("--seed", 1)[1]) == 2
    monkeypatch.setattr("eval.run_arguments.held_out", lambda key: key == "photo 1")
    assert run("--part", "held-out")[2] == 3


def test_methods_stand_below_each_other(run, tmp_path):
    assert len(run("--method", "drawer", "other-drawer")[1]) == 2
    table = (tmp_path / "out/pets/comparison.md").read_text()
    assert (table.count("| drawer |"), table.count("| other-drawer |")) == (3, 3)


def test_a_photo_without_labels_is_told(run, root, capsys):
    (root / "masks/photo 1.png").write_bytes(b"torn")
    status, (path,), _ = run()
    assert status == 1
    assert [failure["key"] for failure in json.loads(path.read_text())["failures"]] == ["photo 1"]
    assert "is corrupt or incomplete" in capsys.readouterr().err


def test_unusable_options_are_one_line(run, capsys):
    assert run("--granularity", "0.5")[0] == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: drawer has no option 'granularity'")
