"""Options that no bundled method declares like this, on the page, the command line and in the API."""

import gradio as gr
import pytest

from ovseg_demo import cli
from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry
from ovseg_demo.ui import gallery
from ovseg_demo.ui.handlers import Handlers
from ovseg_demo.ui.option_controls import OptionControls
from ovseg_demo.ui.page import build
from ovseg_demo.ui.page_request import PageRequest, control_keys, option_keys
from tests.helpers.declared_options import ABSENT, DECLARED, DeclaredOptions

PIZZA = str(gallery.FOLDER / "pizza.jpg")
KEYS = {"unlabelled", "shade", "flipped", "rows", "fewest", "softness", "granularity-2"}


@pytest.fixture(autouse=True, params=[DECLARED, ABSENT], ids=["here", "absent"])
def spec(request, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, request.param.id, request.param)
    return request.param


@pytest.fixture
def controls(spec) -> OptionControls:
    with gr.Blocks():
        return OptionControls("cat", [spec.id])


def help_text(capsys) -> str:
    with pytest.raises(SystemExit):
        cli.main(["segment", "--help"])
    return " ".join(capsys.readouterr().out.split())


def test_every_declaration_has_a_control_whether_the_weights_are_here_or_not(controls, spec):
    assert control_keys([spec.id]) == KEYS
    assert {control.key for control in controls.all if control.group.visible} == KEYS


def test_the_controls_have_the_declared_defaults(controls, spec):
    data = {component: component.value for component in controls.components}
    request = PageRequest("cat.jpg", "cat", (spec.id,), controls.values(data, "cat"))
    assert request.options(spec.id) == DeclaredOptions()


def test_a_choice_stands_for_none_where_none_is_the_default(controls):
    shade = controls.by_key["shade"]
    assert isinstance(shade.main, gr.Radio)
    assert shade.main.choices == [("as it is", ""), ("dark", "dark"), ("light", "light")]
    assert shade.main.value == ""
    for sent, value in (("", None), (None, None), ("dark", "dark")):
        assert shade.value({shade.main: shade.main.preprocess(sent)}, "cat") == value


def test_a_whole_number_has_a_slider_of_whole_steps(controls):
    rows = controls.by_key["rows"].main
    assert isinstance(rows, gr.Slider)
    assert rows.step == 1
    assert rows.preprocess(3.4) == 3


def test_options_of_one_name_that_are_declared_differently_have_a_control_each(controls, spec):
    assert option_keys(spec.id)["granularity"] == "granularity-2"
    assert option_keys("ovseg-sam-mini")["granularity"] == "granularity"
    assert isinstance(controls.by_key["granularity"].main, gr.Slider)
    assert isinstance(controls.by_key["granularity-2"].main, gr.Radio)
    values = {"granularity": 0.3, "granularity-2": "coarse"}
    request = PageRequest("cat.jpg", "cat", (spec.id, "ovseg-sam-mini"), values)
    assert request.options(spec.id).given()["granularity"] == "coarse"
    assert request.options("ovseg-sam-mini").given()["granularity"] == 0.3


def test_options_of_one_name_that_are_declared_differently_share_a_flag(spec, capsys):
    text = help_text(capsys)
    assert "--granularity GRANULARITY OVSeg, OVSeg-MaskFormer: At 1 each class keeps its best mask only;" in text
    assert f"(default: 0.8) {spec.family}: Of a film. (default: fine)" in text


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("", "0.5", "Grain must be one of fine, coarse; got '0.5'."),
        ("ovseg-sam-mini", "coarse", "Granularity must be a number between 0 and 1, or auto; got 'coarse'."),
        ("ovseg-sam-mini", "0.5", "There is no image at"),
    ],
)
def test_the_method_reads_the_value_of_a_shared_flag(spec, tmp_path, capsys, method, value, message):
    photos = ["segment", str(tmp_path), "--vocabulary", "cat"]
    assert cli.main([*photos, "--method", method or spec.id, "--granularity", value]) == 1
    assert message in capsys.readouterr().err


def test_a_flag_has_choices_where_all_declarations_agree(capsys):
    assert "--shade {dark,light}" in help_text(capsys)


def test_a_per_cent_sign_in_the_help_is_shown(capsys, controls):
    assert "Of 100 % of the photo." in help_text(capsys)
    assert controls.by_key["shade"].option.help == "Of 100 % of the photo."


def test_a_page_is_built_with_all_kinds_of_controls(monkeypatch, spec):
    assert build(Engine("cpu")).fns


def test_a_method_without_its_weights_is_refused_whatever_its_options(spec, tmp_path, capsys):
    handlers = Handlers(Engine("cpu"))
    (listed,) = (method for method in handlers.api_methods() if method["id"] == spec.id)
    assert listed["available"] == (spec is DECLARED)
    assert "rows" in listed["options"]["properties"]
    command = ["segment", PIZZA, "--vocabulary", "a, b", "--method", spec.id, "--rows", "4", "--out", str(tmp_path)]
    if spec is DECLARED:
        assert cli.main(command) == 0
        assert len(handlers.api_segment(PIZZA, "a, b", spec.id, {"rows": 4})) == 3
        return
    assert cli.main(command) == 1
    assert "--download clip-vit-b16" in capsys.readouterr().err
    with pytest.raises(gr.Error, match="--download clip-vit-b16"):
        handlers.api_segment(PIZZA, "a, b", spec.id, {"rows": 4})
