"""Where windows lie, as mmsegmentation's sliding window puts them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_demo.methods.tagclip.windows import window_origins


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), ((0, 0),)),
        ((512, 513), ((0, 0), (0, 1))),
        ((512, 938), ((0, 0), (0, 426))),
        ((512, 939), ((0, 0), (0, 426), (0, 427))),
        ((683, 512), ((0, 0), (171, 0))),
    ],
)
def test_the_last_window_is_shifted_back(size, expected):
    assert window_origins(size, 512, 426) == expected


@given(st.integers(8, 60), st.integers(8, 60), st.integers(1, 8))
def test_windows_cover_the_photo_and_stay_inside(height, width, stride):
    covered = np.zeros((height, width), bool)
    for top, left in window_origins((height, width), 8, stride):
        part = covered[top : top + 8, left : left + 8]
        assert part.shape == (8, 8)
        part[:] = True
    assert covered.all()
