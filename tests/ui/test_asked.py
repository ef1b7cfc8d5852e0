from dataclasses import replace

import pytest

from ovseg_demo.errors import UserError
from ovseg_demo.methods.base import Options
from ovseg_demo.ui.asked import Asked, names, plain

SHOWN = Asked("cat.jpg", "cat, sofa", ("ovseg-sam-mini",), 0.8, "fast")
REJECTION = (8, 8, 8)


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
    assert (
        dense.change(replace(dense, granularity=0.1, proposals="thorough", rejection=REJECTION, seen=(), trusty=False))
        == ""
    )


@pytest.mark.parametrize(
    ("method", "moved"),
    [
        ("sed-convnext-b", {"rejection": REJECTION}),
        ("tagclip-own", {"seen": ()}),
        ("tagclip-own", {"trusty": False}),
        ("zegclip-voc", {"seen": ("cat",)}),
    ],
)
def test_a_setting_is_of_the_methods_that_use_it(method, moved):
    shown = replace(SHOWN, methods=(method,))
    now = replace(shown, **moved)
    assert shown.change(now) == "settings"
    assert now.options(method) == Options(**moved)
    assert now.options("mini-dense") == Options()


def test_all_that_a_method_uses_is_passed_on():
    assert replace(SHOWN, granularity=None).options("ovseg-sam-mini") == Options(None, "fast")


def of(words="cat, sofa|couch, sky", **switched) -> Asked:
    controls = {"granularity": 0.3, "automatic": False, "proposals": "fast", "rejecting": False, "best": 5}
    controls |= {"as_trained": False, "marked": ["sky", "cat"], "trusty": True}
    return Asked.of("cat.jpg", words, ["tagclip-own"], **controls | switched)


def test_a_switch_decides_whether_what_is_beside_it_counts():
    assert (of().granularity, of(automatic=True).granularity) == (0.3, None)
    assert (of().rejection, of(rejecting=True).rejection) == (None, (5, 5, 5))
    assert (of().seen, of(as_trained=True).seen) == (("cat", "sky"), None)


def test_only_marks_of_classes_that_are_typed_count_in_the_order_typed():
    assert of("sky, dog, cat").seen == ("sky", "cat")
    assert of(marked=["sofa", "couch", "gone"]).seen == ("sofa",)
    assert of("", marked=["cat"]).seen == of(marked=None).seen == ()


def test_a_text_that_cannot_be_used_holds_no_names():
    assert names("cat, sofa|couch") == ("cat", "sofa")
    assert names(" , ") == names("x" * 101) == ()


def test_plain_inputs_are_read():
    assert plain(None, "fast") == Options(None, "fast")
    assert plain(0.5, "fast", 8, "cat, sofa|couch", False) == Options(
        0.5, "fast", rejection=REJECTION, seen=("cat", "sofa", "couch"), trusty=False
    )
    assert plain(0.5, "fast", seen=" ").seen == ()


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ((3.0, "fast"), "between 0 and 1"),
        (("much", "fast"), "must be a number"),
        ((0.8, "perfect"), "Unknown proposal setting"),
        ((0.8, "fast", 0), "whole numbers of at least 1"),
        ((0.8, "fast", "few"), "whole numbers of at least 1"),
        ((0.8, "fast", None, "x" * 101), "the limit is 100"),
    ],
)
def test_plain_inputs_are_checked(inputs, told):
    with pytest.raises(UserError, match=told):
        plain(*inputs)


def test_the_order_of_methods_does_not_matter():
    both = replace(SHOWN, methods=("ovseg-sam-mini", "mini-dense"))
    assert both.change(replace(both, methods=both.methods[::-1])) == ""
