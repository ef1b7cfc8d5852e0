"""A new method is one package and one line in the registry: its options are found everywhere without more."""

import json

import numpy as np
import pytest
from PIL import Image

from ovseg_demo import cli
from ovseg_demo.engine import Engine
from ovseg_demo.errors import MethodError
from ovseg_demo.methods import registry
from ovseg_demo.ui.handlers import Handlers
from ovseg_demo.ui.page_request import PageRequest
from tests.helpers.toy_method import TOY, ToyOptions


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, TOY.id, TOY)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (12, 8), "white").save(path)
    return path


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_command_line_has_a_flag_for_each_option(capsys):
    with pytest.raises(SystemExit):
        run("segment", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--border BORDER Toy: Pixels at the left that stay unlabelled, 100 % of them. (default: 2)" in text
    assert "--inverted, --no-inverted Toy: Draw the last word instead of the first." in text


def test_the_flags_reach_the_method(photo, tmp_path):
    out = tmp_path / "out"
    typed = ["--method", "toy", "--border", "5", "--inverted", "--out", out]
    assert run("segment", photo, "--vocabulary", "cat, dog", *typed) == 0
    content = json.loads((out / "photo.json").read_text())
    assert (content["border"], content["inverted"]) == (5, True)
    labels = np.array(Image.open(out / "photo.labels.png"))
    assert (labels[:, :5] == 255).all()
    assert (labels[:, 5:] == 1).all()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--method", "toy", "--border", "10"], "error: Border must lie between 0 and 9; got '10'.\n"),
        (["--method", "toy", "--border", "few"], "error: Border must lie between 0 and 9; got 'few'.\n"),
        (
            ["--method", "toy", "--granularity", "1"],
            "error: toy has no option 'granularity'; these have it: ovseg-sam-",
        ),
        (
            ["--method", "mini-dense", "--border", "1"],
            "error: mini-dense has no option 'border'; these have it: toy.\n",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(photo, typed, sentence, capsys):
    assert run("segment", photo, "--vocabulary", "cat", *typed) == 1
    assert sentence in capsys.readouterr().err


def test_the_evaluation_has_the_flags_too(capsys):
    from eval import evaluate

    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "--border BORDER" in capsys.readouterr().out


def test_the_api_describes_and_reads_the_options(photo):
    handlers = Handlers(Engine("cpu"))
    (described,) = (entry for entry in handlers.api_methods() if entry["id"] == "toy")
    properties = described["options"]["properties"]
    assert properties["border"] | {"description": ""} == {
        "default": 2, "minimum": 0, "maximum": 9, "title": "Border", "type": "integer", "description": ""
    }  # fmt: skip
    assert properties["inverted"]["type"] == "boolean"
    *_, content = handlers.api_segment(str(photo), "cat, dog", "toy", {"border": 0, "inverted": True})
    with open(content) as file:
        (found,) = json.load(file)["classes"]
    assert (found["name"], found["share"]) == ("dog", 1.0)


def test_the_page_knows_what_changes_a_result():
    shown = PageRequest("photo.png", "cat", ("toy",), {"border": 2, "inverted": False, "proposals": "fast"})
    assert shown.options("toy") == ToyOptions()
    assert shown.change(shown.with_values({"border": 3})) == "settings"
    assert shown.change(shown.with_values({"inverted": True})) == "settings"
    assert shown.change(shown.with_values({"proposals": "thorough"})) == ""


def test_the_engine_takes_the_options_of_the_method_alone(photo):
    from ovseg_demo import image, vocabulary

    engine, words = Engine("cpu"), vocabulary.parse("cat, dog")
    result = engine.segment(image.load(photo), words, "toy", ToyOptions(border=0))
    assert (result.labels == 0).all()
    with pytest.raises(MethodError, match="ToyOptions are no options of mini-dense"):
        engine.segment(image.load(photo), words, "mini-dense", ToyOptions())
