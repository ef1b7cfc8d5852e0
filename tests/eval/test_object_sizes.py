"""Scores by object size, on drawn labels."""

import numpy as np
import pytest
import torch

from eval import object_sizes
from eval.object_sizes import ObjectScore, score_objects, size_row
from tests.helpers.evaluation_fakes import Reader, draw, registered


def square(labels: np.ndarray, top: int, left: int, side: int, label: int) -> None:
    labels[top : top + side, left : left + side] = label


def test_objects_are_pieces_of_a_class_by_their_area_at_640_pixels():
    labels = np.full((320, 320), 0)
    square(labels, 10, 10, 8, 1)  # 16 x 16 at 640 pixels
    square(labels, 100, 100, 16, 1)  # 32 x 32, no longer small
    square(labels, 200, 200, 60, 2)  # 120 x 120
    square(labels, 300, 10, 3, 2)  # a sliver
    found = {(score.label, score.size) for score in score_objects(labels, labels, background=0)}
    assert found == {(1, 0), (1, 1), (2, 2)}
    assert all(score.iou == score.recall == 1 for score in score_objects(labels, labels))


def test_iou_counts_the_window_around_the_object_only():
    labels = np.zeros((640, 640), int)
    square(labels, 100, 100, 20, 1)
    prediction = np.zeros_like(labels)
    prediction[100:110, 100:120] = 1  # half of it
    prediction[95:100, 100:120] = 1  # 100 pixels beside it, within the window
    prediction[400:, 400:] = 1  # elsewhere
    [score] = score_objects(labels, prediction, background=0)
    assert score.recall == 0.5
    assert score.iou == pytest.approx(200 / 500)
    labels[95:100] = -1  # ignored pixels count nowhere
    [score] = score_objects(labels, prediction, background=0)
    assert score.iou == 0.5


def test_means_run_over_objects_and_then_over_classes():
    scores = [ObjectScore(0, 1, 0.2, 0.4), ObjectScore(0, 1, 0.4, 0.6), ObjectScore(3, 1, 0.9, 0.9)]
    assert size_row(scores, 1) == (3, pytest.approx(0.6), pytest.approx(0.7))
    count, *means = size_row(scores, 0)
    assert count == 0
    assert np.isnan(means).all()


def test_the_command_prints_a_row_for_each_method(tmp_path, monkeypatch, capsys):
    registered(monkeypatch.setitem, monkeypatch.setattr)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(object_sizes, "Engine", lambda device: Reader())
    draw(tmp_path, 3)
    command = ["--dataset", "tiny", "--root", str(tmp_path), "--method", "reader", "other-reader"]
    assert object_sizes.main(command) == 0
    *_, head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.startswith("| method | small: objects |")
    assert first.startswith("| reader | ")
    assert second.replace("other-reader", "reader") == first
