from dataclasses import replace

import pytest

from ovseg_demo.ui.asked import Asked

SHOWN = Asked("cat.jpg", "cat, sofa", ("ovseg-sam-mini",), 0.8, "fast")


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ({}, ""),
        ({"words": " cat, sofa "}, ""),
        ({"photo": None, "words": "dog"}, "photo"),
        ({"words": "dog", "proposals": "thorough"}, "words"),
        ({"methods": ("mini-dense",)}, "settings"),
        ({"granularity": None}, "settings"),
        ({"proposals": "thorough"}, "settings"),
    ],
)
def test_the_weightiest_difference_is_told(now, change):
    assert SHOWN.change(replace(SHOWN, **now)) == change


def test_settings_without_effect_change_nothing():
    dense = replace(SHOWN, methods=("mini-dense",))
    assert dense.change(replace(dense, granularity=0.1, proposals="thorough")) == ""


def test_the_order_of_methods_does_not_matter():
    both = replace(SHOWN, methods=("ovseg-sam-mini", "mini-dense"))
    assert both.change(replace(both, methods=both.methods[::-1])) == ""
