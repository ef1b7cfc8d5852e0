from dataclasses import replace

import pytest

from ovseg_demo.ui.asked import Asked, effective

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
    assert dense.change(replace(dense, granularity=0.1, proposals="thorough", rejection=8)) == ""


def test_early_rejection_is_a_setting_of_the_methods_that_have_it():
    sed = replace(SHOWN, methods=("sed-convnext-b",))
    assert sed.change(replace(sed, rejection=8)) == "settings"
    assert [effective(8, method) for method in ("sed-convnext-b", "mini-dense")] == [8, None]
    assert effective(None, "sed-convnext-b") is None


def test_the_order_of_methods_does_not_matter():
    both = replace(SHOWN, methods=("ovseg-sam-mini", "mini-dense"))
    assert both.change(replace(both, methods=both.methods[::-1])) == ""
