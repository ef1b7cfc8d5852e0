import gradio as gr
import pytest

from ovseg_demo.ui import settings
from ovseg_demo.ui.asked import Asked

GROUPS = ["fusing", "proposals", "rejection", "seen", "weighting"]


@pytest.fixture
def controls() -> settings.Settings:
    with gr.Blocks():
        return settings.build("cat, sofa|couch")


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ([], []),
        (["mini-dense"], []),
        (["ovseg-sam-mini"], ["fusing", "proposals"]),
        (["sed-convnext-b"], ["rejection"]),
        (["zegclip-voc"], ["seen"]),
        (["tagclip-own"], ["seen", "weighting"]),
        (["mini-dense", "zegclip-voc", "tagclip-own", "sed-own"], ["rejection", "seen", "weighting"]),
    ],
)
def test_a_group_shows_where_a_method_uses_it(controls, chosen, shown):
    assert [group.elem_id for group in controls.groups] == GROUPS
    fitting = settings.fitting(chosen)
    assert [type(update) for update in fitting] == [type(group) for group in controls.groups]
    assert [name for name, update in zip(GROUPS, fitting, strict=True) if update.visible] == shown


def test_the_controls_say_what_nobody_has_changed(controls):
    asked = Asked.of("cat.jpg", "cat", ["tagclip-own"], *(control.value for control in controls.all))
    assert asked == Asked("cat.jpg", "cat", ("tagclip-own",))


def test_a_box_for_each_class_that_is_typed(controls):
    assert controls.marks.props["names"] == ("cat", "sofa")
    assert settings.typed("bus,").props["names"] == ("bus",)
    assert settings.typed(",").props["names"] == ()


@pytest.mark.parametrize(("typed", "taken"), [(-3, 1), (None, 8), (5.4, 5), (10**6, 1000)])
def test_nonsense_in_the_box_of_k_is_taken_as_the_nearest(controls, typed, taken):
    assert controls.best.preprocess(typed) == taken


@pytest.mark.parametrize(("typed", "taken"), [(-3, 0), (None, 0.8), (0.4, 0.4), (7, 1)])
def test_nonsense_in_the_box_of_granularity_is_taken_as_the_nearest(controls, typed, taken):
    assert controls.granularity.preprocess(typed) == taken
