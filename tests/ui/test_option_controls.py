import gradio as gr
import pytest

from ovseg_demo.methods.registry import REGISTRY
from ovseg_demo.ui.option_controls import OptionControls
from ovseg_demo.ui.page_request import PageRequest

SEGCLIP_MINI = ["background", "image_prior"]
SEGCLIP = ["background-2", "image_prior", "overlap"]  # the mini model has another default, and so a slider of its own
DENSE = ["strategy", "pamr", "masks", "short_side", "stride"]
KEYS = ["unlabelled", "granularity", "proposals", "rejection", "seen", "trusty"]
KEYS += ["background", "background-2", "image_prior", *DENSE[:-1], "short_side-2", "short_side-3", "stride", "overlap"]


@pytest.fixture
def controls() -> OptionControls:
    with gr.Blocks():
        return OptionControls("cat, sofa|couch", ["ovseg-sam-mini"])


def values_of(controls: OptionControls, words: str = "cat, sofa|couch, sky", **moved) -> dict:
    """The values of the controls as they are at first, but for some; "KEY_switch" is the switch of a control."""
    data = {part: part.value for part in controls.components}
    for name, value in moved.items():
        control = controls.by_key[name.removesuffix("_switch")]
        part = control.switch if name.endswith("_switch") else control.main
        assert part is not None
        data[part] = value
    return controls.values(data, words)


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ([], []),
        (["mini-dense"], ["unlabelled"]),
        (["ovseg-sam-mini"], ["unlabelled", "granularity", "proposals"]),
        (["sed-convnext-b"], ["unlabelled", "rejection"]),
        (["zegclip-voc"], ["unlabelled", "seen"]),
        (["tagclip-own"], ["unlabelled", "seen", "trusty"]),
        (["dense-clip-vitb16"], ["unlabelled", *DENSE]),
        (["segclip-mini"], SEGCLIP_MINI),
        (["segclip"], SEGCLIP),
        (["mrovseg-own"], ["unlabelled", "short_side-2"]),
        (["mini-dense", "zegclip-voc", "tagclip-own", "sed-own"], ["unlabelled", "rejection", "seen", "trusty"]),
    ],
)
def test_a_group_shows_where_a_method_has_the_option(controls, chosen, shown):
    assert [group.elem_id for group in controls.groups] == [f"option-{key}" for key in KEYS]
    fitting = controls.visibility(chosen)
    assert [key for key, update in zip(KEYS, fitting, strict=True) if update.visible] == shown


def test_the_page_opens_with_the_options_of_its_first_method(controls):
    assert [group.elem_id for group in controls.groups if group.visible] == [
        *("option-unlabelled", "option-granularity", "option-proposals"),
    ]


@pytest.mark.parametrize(
    "method", ["ovseg-sam-mini", "sed-mini", "tagclip-mini", "segclip-mini", "dense-clip-vitb16", "segclip"]
)
def test_the_controls_have_the_default_values_until_somebody_moves_them(controls, method):
    request = PageRequest("cat.jpg", "cat", (method,), values_of(controls))
    assert request.options(method) == REGISTRY[method].options()


def test_a_switch_decides_whether_what_is_beside_it_counts(controls):
    assert values_of(controls, granularity=0.3)["granularity"] == 0.3
    assert values_of(controls, granularity=0.3, granularity_switch=True)["granularity"] is None
    assert values_of(controls, rejection=5)["rejection"] is None
    assert values_of(controls, rejection=5, rejection_switch=True)["rejection"] == 5
    assert values_of(controls, unlabelled=0.6)["unlabelled"] == 0.6
    assert values_of(controls, unlabelled=0.6, unlabelled_switch=False)["unlabelled"] == 0
    assert values_of(controls, seen=["sky", "cat"])["seen"] is None
    assert values_of(controls, seen=["sky", "cat"], seen_switch=False)["seen"] == ("cat", "sky")


def test_only_ticks_of_classes_that_are_typed_count_in_the_order_typed(controls):
    def ticked(words: str, ticks: list[str] | None) -> tuple[str, ...]:
        return values_of(controls, words, seen=ticks, seen_switch=False)["seen"]

    assert ticked("sky, dog, cat", ["cat", "sky"]) == ("sky", "cat")
    assert ticked("cat, sofa|couch", ["sofa", "couch", "gone"]) == ("sofa",)
    assert ticked("", ["cat"]) == ticked("cat", None) == ()


def test_a_box_for_each_class_that_is_typed(controls):
    (marks,) = controls.word_marks
    assert marks.main.props["names"] == ("cat", "sofa")
    assert [update.props["names"] for update in controls.word_boxes("bus,")] == [("bus",)]
    assert [update.props["names"] for update in controls.word_boxes(",")] == [()]


@pytest.mark.parametrize(("entered", "taken"), [(-3, 1), (None, 8), (5.4, 5), (10**6, 1000)])
def test_nonsense_in_the_box_of_k_is_taken_as_the_nearest(controls, entered, taken):
    assert controls.by_key["rejection"].main.preprocess(entered) == taken


@pytest.mark.parametrize(("entered", "taken"), [(-3, 0), (None, 0.8), (0.4, 0.4), (7, 1)])
def test_nonsense_in_the_box_of_granularity_is_taken_as_the_nearest(controls, entered, taken):
    assert controls.by_key["granularity"].main.preprocess(entered) == taken
