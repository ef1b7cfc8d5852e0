"""The benchmark's own arithmetic and a short run; times are never asserted."""

import numpy as np
import pytest

from eval import benchmark
from eval.visitor import Visitor
from ovseg_demo import gallery
from ovseg_demo.methods.base import Options
from ovseg_demo.proposals.base import MaskProposals

PIZZA = next(e.path for e in gallery.examples() if e.file == "pizza.jpg")


def masks(*rows: str) -> MaskProposals:
    return MaskProposals.from_masks(np.array([[[c == "1" for c in row]] for row in rows]), np.ones(len(rows)))


def test_recall_is_the_share_found_again():
    reference = masks("1111100000", "0000011111", "1010101010")
    assert benchmark.recall(reference, reference) == 1
    assert benchmark.recall(reference, masks("1111000000")) == pytest.approx(1 / 3)  # IoU 0.8
    assert benchmark.recall(reference, masks("1110000000")) == 0  # IoU 0.6
    assert benchmark.recall(reference, masks("0000000000")) == 0


@pytest.mark.parametrize("name", ["fast", "generator 16x16"])
def test_a_contender_is_measured_stage_by_stage(name, monkeypatch):
    monkeypatch.setitem(benchmark.STOCK, "generator 16x16", 3)
    run = benchmark.contend(name, [PIZZA])
    assert set(run.seconds[0]) == set(run.megabytes) == set(benchmark.STAGES)
    assert all(seconds > 0 for seconds in run.seconds[0].values())
    assert all(megabytes > 100 for megabytes in run.megabytes.values())
    assert run.proposals[0].size == (461, 640)
    assert len(run.proposals[0]) > 3


def test_large_photos_are_large_and_different(tmp_path):
    first, second = benchmark._large_photos(2, tmp_path)
    assert first.read_bytes() != second.read_bytes()


def test_a_visitor_sees_what_a_browser_would(server):
    visitor = Visitor(server)
    with pytest.raises(RuntimeError, match="no photo"):
        visitor.move_granularity(0.5)
    assert visitor.segment(PIZZA, "pizza, horse, bus", "ovseg-sam-mini", Options()) > 0
    assert visitor.move_granularity(0.5) > 0
    assert visitor.change_words("pizza, kite", "ovseg-sam-mini", Options()) > 0
    with pytest.raises(RuntimeError, match="the server answered"):
        visitor.change_words(" ", "ovseg-sam-mini", Options())
