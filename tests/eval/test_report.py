import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import report, runner, samples_page
from eval.boundary import BoundaryCounts
from eval.journal import Failure, Record
from eval.markdown import table
from eval.metrics import Confusion
from eval.open_iou import Similarities
from eval.runner import Evaluation
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.vocabulary import Vocabulary
from tests.helpers import evaluation_fakes as fakes

NASTY = "<script>alert('&|\"')</script>"
NASTY_WORDS = Vocabulary((NASTY, *fakes.NAMES[1:]), ((),) * 4)
LABELS = np.array([0, 0, 0, 0, 1, 1])
SIMILARITIES = Similarities(np.array([[1, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 1, 0], [0, 0, 0, 1]]), "cosines of toys")
PREDICTION = np.array([0, 0, 2, -1, 1, 1])


def record(key: str, miou: float | None = 0.5, **seconds: float) -> Record:
    confusion, boundary = Confusion(4), BoundaryCounts(4)
    confusion.add(LABELS, PREDICTION)
    boundary.add(LABELS[None], PREDICTION[None])
    parts = {"loading": 0.0, "waiting": 0.0, "inference": 1.0, "metrics": 0.0, **seconds}
    return Record(key, miou, confusion.sparse(), boundary.sparse(), parts, {"Reading": parts["inference"]})


@pytest.fixture
def dataset(tmp_path):
    fakes.draw(tmp_path / "set", 3)
    return fakes.read(tmp_path / "set")


def content(dataset, *records: Record, failures: tuple[Failure, ...] = (), method: str = "reader") -> dict:
    evaluation = Evaluation(Confusion(4), BoundaryCounts(4), records, failures)
    for each in records:
        evaluation.confusion.add_sparse(each.confusion)
        evaluation.boundary.add_sparse(each.boundary)
    settings = {"method": method, "options": {"granularity": 0.8}}
    return report.report_content(
        evaluation, dataset, SIMILARITIES, settings, {"cores": 2, "accelerator": None}, "python -m eval.evaluate"
    )


def cells(markdown: str, first: str) -> list[str]:
    """The row of a Markdown table that starts with a cell."""
    (line,) = re.findall(rf"^\| {re.escape(first)} \|.*", markdown, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_scores_stand_side_by_side_under_both_rules(dataset):
    found = content(dataset, record("a"))
    assert found["scores"]["miou"]["ground_truth"]["miou"] == 0.75
    assert found["scores"]["miou"]["union"]["miou"] == 0.5
    text = report.markdown(found)
    assert cells(text, "mIoU") == ["75.00", "50.00"]
    assert cells(text, "Open mIoU") == ["81.25", "54.17"]
    assert "Similarities of classes in Open mIoU: cosines of toys." in text
    assert cells(text, "mIoU, seen") == ["75.00", "75.00"]
    assert cells(text, "mIoU, unseen") == ["–", "–"]
    assert cells(text, "pixel accuracy") == ["66.67"]
    assert cells(text, "mean class accuracy") == ["75.00"]
    assert cells(text, "frequency-weighted IoU") == ["66.67"]
    assert cells(text, "boundary IoU") == ["75.00"]
    assert cells(text, "0") == ["cat", "50.00", "50.00", "62.50", "50.00", "4", "2"]
    assert cells(text, "3") == ["sky", "–", "–", "–", "–", "0", "0"]


def test_a_benchmark_without_a_split_has_no_rows_for_one(dataset):
    text = report.markdown(content(replace(dataset, seen=(), unseen=()), record("a")))
    assert "unseen" not in text
    assert "hIoU" not in text


def test_shares_of_time_add_up_and_background_loading_is_told_apart(dataset):
    seconds = {"loading": 5.0, "waiting": 0.5, "metrics": 0.5}
    text = report.markdown(content(dataset, record("a", inference=8, **seconds), record("b", inference=10, **seconds)))
    assert cells(text, "waiting for images and labels") == ["1.000", "0.500", "0.500", "5.00"]
    assert cells(text, "inference") == ["18.000", "9.000", "9.000", "90.00"]
    assert cells(text, "metrics") == ["1.000", "0.500", "0.500", "5.00"]
    assert cells(text, "loading, beside inference") == ["10.000", "5.000", "5.000", ""]
    assert cells(text, "inference: Reading") == ["18.000", "9.000", "9.000", ""]


def test_failures_are_listed_with_their_path(dataset):
    found = content(dataset, record("a"), failures=(Failure("b", "set/b.png", "It is | torn\nhere."),))
    assert found["failures"] == [{"key": "b", "path": "set/b.png", "error": "It is | torn\nhere."}]
    text = report.markdown(found)
    assert r"| set/b.png | It is \| torn here. |" in text
    assert "1 of 3 images, 4 classes, 'rest' being what is left unlabelled." in text


def test_nothing_finished_is_still_a_report_in_strict_json(dataset):
    found = content(dataset, failures=(Failure("a", "a.png", "Gone."),))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert cells(report.markdown(found), "mIoU") == ["–", "–"]
    assert cells(report.comparison([found]), "reader")[-3:] == ["–", "0", "1"]


def test_methods_stand_below_each_other(dataset):
    reports = [content(dataset, record("a", inference=i), method=f"method {i}") for i in (1, 2)]
    lines = report.comparison(reports).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert cells("\n".join(lines), "method 2")[:2] == ["75.00", "50.00"]
    assert cells("\n".join(lines), "method 2")[-3:] == ["2.000", "1", "0"]


def test_a_table_holds_whatever_its_cells_hold():
    assert table(["a"], [["x|y\nz"]]) == "| a |\n| --- |\n| x\\|y z |"


def test_picks_are_best_median_and_worst_without_overlap():
    records = [record(f"{i:02}", miou) for i, miou in enumerate([*np.arange(11) / 10, None, 0.5])]
    groups = samples_page.select_samples(records, 2)
    assert {name: [r.key for r in group] for name, group in groups.items()} == {
        "Best": ["10", "09"],
        "Median": ["05", "12"],
        "Worst": ["00", "01"],
    }
    few = samples_page.select_samples(records[:3], 2)
    assert [[r.key for r in group] for group in few.values()] == [["02", "01"], [], ["00"]]
    assert not any(samples_page.select_samples([], 2).values())


def test_the_page_escapes_names_keys_and_title(dataset):
    dataset = replace(dataset, vocabulary=NASTY_WORDS)
    page = samples_page.html(NASTY, dataset, {"Best": [record(NASTY)], "Worst": []})
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(") == 5  # title, heading, class, caption and the picture's description
    assert "alert('&|\"" not in page
    assert "Worst" not in page


def test_the_page_shows_pictures_that_are_made_once(dataset, tmp_path):
    runner.evaluate(fakes.Reader(), dataset, "reader", SamOptions(), tmp_path / "run")
    groups = samples_page.select_samples(runner.collect(dataset, tmp_path / "run").records, 1)
    again = fakes.Reader()
    for each in (again, fakes.Reader()):
        predict = runner.Predictor(each, dataset, "reader", SamOptions())
        page = samples_page.write_page(tmp_path / "run", "title", dataset, groups, predict)
    assert len(again.shown) == 3
    assert len(each.shown) == 0
    pictures = re.findall(r"src='([^']+)'", page.read_text())
    assert len(pictures) == 3
    for picture in pictures:
        assert not Path(picture).is_absolute()
        with Image.open(page.parent / picture) as opened:
            assert opened.size == (3 * 17, 12)


def test_background_and_ignored_pixels_show_the_photo_and_classes_their_colour(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    labels, shown = np.full((60, 90), fakes.REST), np.full((60, 90), -1)
    labels[:, :30], shown[:, :30] = 0, 0
    labels[:, 60:] = 255
    fakes.store(tmp_path, "one", labels, shown)
    dataset = fakes.read(tmp_path)
    runner.evaluate(fakes.Reader(), dataset, "reader", SamOptions(), tmp_path / "run")
    groups = samples_page.select_samples(runner.collect(dataset, tmp_path / "run").records, 1)
    predict = runner.Predictor(fakes.Reader(), dataset, "reader", SamOptions())
    page = samples_page.write_page(tmp_path / "run", "title", dataset, groups, predict)
    (picture,) = (page.parent / samples_page.PICTURES).iterdir()
    with Image.open(picture) as opened:
        photo, truth, prediction = (np.asarray(opened).astype(int)[30, x : x + 90] for x in (0, 90, 180))
    for overlay in (truth, prediction):
        assert np.abs(overlay - photo)[35:85].max() < 12
        assert np.abs(overlay - photo)[5:25].max(1).min() > 40
    assert "background:transparent'></i>rest" in page.read_text()
