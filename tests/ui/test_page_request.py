from dataclasses import replace

import pytest

from ovseg_demo.errors import UserError
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.methods.registry import REGISTRY
from ovseg_demo.ui.page_request import PageRequest, class_names, control_keys, option_keys

SHOWN = PageRequest("cat.jpg", "cat, sofa", ("ovseg-sam-mini",), {"granularity": 0.8, "proposals": "fast"})
MOVED = {"granularity": 0.1, "proposals": "thorough", "rejection": 5, "seen": (), "trusty": False}


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ({}, ""),
        ({"words": " cat, sofa "}, ""),
        ({"photo": None, "words": "dog"}, "photo"),
        ({"words": "dog", "values": {"proposals": "thorough"}}, "words"),
        ({"methods": ("mini-dense",)}, "settings"),
        ({"values": {"granularity": None, "proposals": "fast"}}, "settings"),
        ({"values": {"granularity": 0.8, "proposals": "thorough"}}, "settings"),
    ],
)
def test_the_weightiest_difference_is_found(now, change):
    assert SHOWN.change(replace(SHOWN, **now)) == change


def test_options_without_effect_change_nothing():
    dense = replace(SHOWN, methods=("mini-dense",))
    assert dense.change(dense.with_values(MOVED)) == ""


@pytest.mark.parametrize(
    ("method", "moved", "wanted"),
    [
        ("sed-convnext-b", {"rejection": 8}, {"rejection": (8, 8, 8)}),
        ("tagclip-own", {"seen": ()}, {"seen": ()}),
        ("tagclip-own", {"trusty": False}, {"trusty": False}),
        ("zegclip-voc", {"seen": ("cat",)}, {"seen": ("cat",)}),
    ],
)
def test_a_value_is_of_the_methods_that_have_the_option(method, moved, wanted):
    shown = replace(SHOWN, methods=(method,))
    now = shown.with_values(moved)
    assert shown.change(now) == "settings"
    assert now.options(method) == REGISTRY[method].options(**wanted)
    assert now.options("mini-dense") == REGISTRY["mini-dense"].options()


def test_all_that_a_method_has_is_passed_on():
    request = SHOWN.with_values({"granularity": None})
    assert request.options("ovseg-sam-mini") == SamOptions(granularity=None, proposals="fast")


def test_a_value_out_of_range_is_one_sentence():
    with pytest.raises(UserError, match="Granularity must lie between 0 and 1; got 3"):
        SHOWN.with_values({"granularity": 3}).options("ovseg-sam-mini")


def test_options_that_the_page_does_not_show_have_no_key():
    assert option_keys("sed-convnext-b").keys() == {"unlabelled", "rejection"}
    assert option_keys("tagclip-own") == {"unlabelled": "unlabelled", "seen": "seen", "trusty": "trusty"}
    assert control_keys(["mini-dense", "sed-own", "ovseg-maskformer-own"]) == {"unlabelled", "rejection", "granularity"}


def test_a_text_that_cannot_be_used_holds_no_names():
    assert class_names("cat, sofa|couch") == ("cat", "sofa")
    assert class_names(" , ") == class_names("x" * 101) == ()


def test_the_order_of_methods_does_not_matter():
    both = replace(SHOWN, methods=("ovseg-sam-mini", "mini-dense"))
    assert both.change(replace(both, methods=both.methods[::-1])) == ""
