"""The report counts; the page shows whatever a photo, a caption or a word is called, and runs none of it."""

import json
import re

import numpy as np
import pytest

from tests.helpers.pairs_data import COLOURS, folder_of, pair
from train.common.run_folder import RunFolder, TrainingError
from train.ovseg.pairs import report
from train.ovseg.pairs.shards import PairShards

EVIL = "<script>alert('&')</script>"


@pytest.fixture
def shards(tmp_path):
    words = ["grass", "water", "grass", EVIL, "snow"]
    return PairShards(folder_of(tmp_path, [pair(word, f"set/{EVIL}", seed=n) for n, word in enumerate(words)]))


def page(shards) -> str:
    counts = {"clip": EVIL} | report.summary(shards, 4)
    return report.html(counts, report.sample_photos(shards, 40, lambda _: np.full((80, 90, 3), 100, np.uint8)))


def test_pairs_words_and_photos_are_counted(shards):
    counts = report.summary(shards, 4)
    assert counts == {
        "photos": 4,
        "photos_with_pairs": 3,
        "pairs": 5,
        "words": 4,
        "pairs_per_photo": 1.25,
        "most_frequent": [("grass", 2), ("water", 1), (EVIL, 1), ("snow", 1)],
    }
    text = report.markdown(counts)
    assert "| pairs per photo | 1.25 |" in text
    assert "| grass | 2 |" in text


def test_the_page_escapes_and_needs_no_other_file(shards):
    text = page(shards)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 5
    sources = re.findall(r"(?:src|href)='([^']*)'", text)
    assert len(sources) == 3 + 5, "each photo with pairs and each pair"
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in text


def test_a_sample_is_spread_over_the_photos(shards):
    chosen = [pairs for _, pairs in report.sample_photos(shards, 2, lambda number: np.zeros((1, 1, 3), np.uint8))]
    assert [[pair.word for pair in pairs] for pairs in chosen] == [["grass", "water"], ["snow"]]


def test_what_is_outside_the_mask_is_dark_beyond_an_outline():
    each, grey = pair("grass"), np.full((50, 70, 3), 200, np.uint8)
    shown = report._spotlight(grey, each)
    x0, y0, _, _ = each.box
    assert (shown[y0 + 2 : y0 + 18, x0 + 2 : x0 + 58] == 200).all()
    assert (shown[y0 + 22 : y0 + 39, x0 + 22 : x0 + 58] == 50).all()
    assert (shown[: y0 - 1] == 50).all()
    assert (shown[y0 - 1, x0 : x0 + 60] == 255).all()


def test_three_files_are_written(shards, tmp_path):
    folder = RunFolder(tmp_path / "run", {})
    counts = report.summary(shards, 4)
    report.write_report(folder, counts, page(shards))
    assert json.loads((folder.path / "report.json").read_text())["pairs"] == 5
    assert (folder.path / "report.md").read_text() == report.markdown(counts)
    assert (folder.path / "samples.html").read_text() == page(shards)


def test_finished_pairs_are_told_from_others(tmp_path):
    one, same, other = (
        folder_of(tmp_path / name, [pair(word, seed=n + seed) for n, word in enumerate(COLOURS)])
        for name, seed in (("one", 0), ("same", 0), ("other", 9))
    )
    assert (one / "report.json").read_text() == (other / "report.json").read_text()
    (found, digest), (_, repeated), (_, different) = map(report.finished_pairs, (one, same, other))
    assert len(found) == 4
    assert digest == repeated != different


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}"])
def test_unfinished_pairs_are_refused(shards, tmp_path, content):
    told = tmp_path / "report.json"
    told.unlink() if content is None else told.write_bytes(content)
    with pytest.raises(TrainingError, match=r"holds no finished pairs; python -m train\.ovseg\.pairs makes them"):
        report.finished_pairs(tmp_path)


def test_a_missing_shard_is_told(tmp_path):
    folder_of(tmp_path, [pair("grass", seed=n) for n in range(10)])
    (tmp_path / "pairs-000001.tar").unlink()
    with pytest.raises(TrainingError, match=r"holds 8 pairs, but should hold 10; the command that made them makes"):
        report.finished_pairs(tmp_path)
