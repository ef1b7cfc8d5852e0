"""The automatic value over stripes whose cover at each value is known."""

import numpy as np

from ovseg_demo.methods.ovseg import granularity
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.proposals.cells import cut_cells
from ovseg_demo.result import Choice


def chosen(widths: list[int], scores: list[float]) -> Choice:
    """Stripes of a one-row photo of 100 pixels, with their scores for the only class."""
    masks = np.zeros((len(widths), 1, 100), bool)
    for number, (start, width) in enumerate(zip(np.cumsum([0, *widths])[:-1], widths, strict=True)):
        masks[number, 0, start : start + width] = True
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(len(widths))))
    return granularity.choose_granularity(cells, np.array(scores, np.float32)[:, None])


def test_the_highest_value_stands_while_more_masks_add_next_to_nothing():
    choice = chosen([60, 30, 1], [1.0, 0.9, 0.2])
    assert choice.value == 0.7
    assert choice.reason == "0.7, because its 2 masks outline 90 % of the photo and more masks would add 1 %."


def test_it_is_lowered_as_far_as_the_cover_needs_and_no_further():
    choice = chosen([60, 30, 2], [1.0, 0.45, 0.2])
    assert choice.value == 0.4
    assert choice.reason == "0.4, because its 2 masks outline 90 % of the photo and those of 0.5 only 60 %."


def test_a_mask_without_the_class_covers_nothing():
    # The second stripe is painted at no value, and is no reason to lower it.
    assert chosen([50, 50], [1.0, 0.0]).value == 0.7


def test_no_mask_at_all():
    choice = chosen([], [])
    assert choice.value == 0.7
    assert choice.reason == "0.7, because its 0 masks outline 0 % of the photo and more masks would add nothing."
