import os
import resource
from pathlib import Path

import pytest
import torch

from train.common.run_folder import Log, RunFolder, TrainingError

CONFIG = {"learning_rate": 0.1, "sizes": (1, 2), "photos": Path("photos")}


def full(file) -> None:
    """Writes half of what it should; then the disk is full."""
    file.write(b"half")
    raise OSError(28, "No space left on device")


def full_for_torch(file) -> None:
    file.write(b"half")
    raise RuntimeError("[enforce fail at inline_container.cc:672] .\nunexpected pos 640 vs 598")


def write(log: Log, step: int, *losses: float) -> float:
    for loss in losses:
        log.add({"fit": loss, "size": 2 * loss})
    return log.write(step, 0.01)


def columns(folder: RunFolder) -> list[list[str]]:
    """log.csv less its seconds, which no two runs share."""
    lines = (folder.path / "log.csv").read_text().splitlines()
    return [line.split(",")[:1] + line.split(",")[2:] for line in lines]


def test_a_folder_goes_on_with_its_configuration_only(tmp_path):
    folder = RunFolder(tmp_path / "a/b", CONFIG)
    assert (folder.path / "config.json").read_text() == folder.text() == RunFolder(folder.path, CONFIG).text()
    with pytest.raises(TrainingError) as raised:
        RunFolder(folder.path, {"learning_rate": 0.2, "photos": "photos", "seed": 3})
    assert str(raised.value) == (
        f"{folder.path} holds a run with other settings (learning_rate was 0.1, now 0.2, seed was None, now 3, "
        "sizes was [1, 2], now None); choose another --out."
    )
    assert (folder.path / "config.json").read_text() == folder.text()


@pytest.mark.parametrize("content", [b"", b"{", b"3", b"[1]", b"null", b"\xff\xfe"])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"config\.json is no configuration; choose another --out\.$"):
        RunFolder(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_file_where_the_folder_should_be_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"^Cannot write into \S+/file: File exists\. [^\n]+$"):
        RunFolder(tmp_path / "file", CONFIG)


@pytest.mark.parametrize("fails", [full, full_for_torch])
def test_a_file_is_replaced_in_one_go_or_not_at_all(tmp_path, fails):
    folder = RunFolder(tmp_path, CONFIG)
    folder.replace("weights", lambda file: file.write(b"whole"))
    with pytest.raises(
        TrainingError, match=r"^Cannot write into \S+: (No space|\[enforce fail).+goes on from there\.$"
    ):
        folder.replace("weights", fails)
    assert (tmp_path / "weights").read_bytes() == b"whole"
    (tmp_path / "weights.part").write_bytes(b"of a run that was killed, and longer")
    folder.replace("weights", lambda file: file.write(b"newer"))
    assert (tmp_path / "weights").read_bytes() == b"newer"
    assert sorted(os.listdir(tmp_path)) == ["config.json", "weights"]


def test_what_the_system_said_is_told_where_torch_says_something_else(tmp_path):
    folder = RunFolder(tmp_path, CONFIG)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"^Cannot write into \S+: File too large\. [^\n]+$") as raised:
            folder.replace("weights", lambda file: torch.save([torch.zeros(50_000) for _ in range(4)], file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_a_line_has_the_means_since_the_line_before(tmp_path):
    log = Log(RunFolder(tmp_path, CONFIG))
    assert write(log, 2, 1.0, 2.0) == 4.5
    assert write(log, 3, 0.12345678) == pytest.approx(0.37037)
    assert columns(RunFolder(tmp_path, CONFIG)) == [
        ["step", "learning_rate", "loss", "fit", "size"],
        ["2", "0.01", "4.5", "1.5", "3"],
        ["3", "0.01", "0.37037", "0.12346", "0.24691"],
    ]


@pytest.mark.parametrize("torn", [b"", b"9", b"30,1.5,0.0", b"3", b"30,1,1,1,1,1\n", b"\0\0\0\n", b"\xff,\n"])
def test_lines_after_the_state_and_torn_ones_are_dropped(tmp_path, torn):
    folder = RunFolder(tmp_path, CONFIG)
    log = Log(folder)
    for step in (10, 20):
        write(log, step, 1.0)
    before = (tmp_path / "log.csv").read_bytes()
    log.add({"fit": 1.0, "size": 0.0})
    state = log.state_dict()
    write(log, 30, 5.0)
    whole = columns(folder)
    (tmp_path / "log.csv").write_bytes(before + torn)
    again = Log(folder)
    again.load_state_dict(state)
    again.cut(25)
    assert (tmp_path / "log.csv").read_bytes() == before
    write(again, 30, 5.0)
    assert columns(folder) == whole


def test_the_log_of_a_run_without_a_state_begins_again(tmp_path):
    folder = RunFolder(tmp_path, CONFIG)
    for torn in (b"st", b"step,seconds\n", b"step,seconds\n10,2.0\n"):
        (tmp_path / "log.csv").write_bytes(torn)
        log = Log(folder)
        log.cut(0)
        write(log, 1, 1.0)
        assert [row[0] for row in columns(folder)] == ["step", "1"]


def test_seconds_count_on(tmp_path):
    log = Log(RunFolder(tmp_path, CONFIG))
    log.load_state_dict({"sums": {}, "count": 0, "seconds": 100.0})
    write(log, 1, 1.0)
    assert 100 <= float((tmp_path / "log.csv").read_text().splitlines()[1].split(",")[1]) < 110


def test_a_log_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    folder = RunFolder(tmp_path, CONFIG)
    (tmp_path / "log.csv").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"^Cannot write into \S+: No space left on device\. [^\n]+$"):
        write(Log(folder), 1, 1.0)
