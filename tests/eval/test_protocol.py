from dataclasses import replace
from typing import ClassVar

import pytest
from pydantic import Field

from eval import class_names, datasets, protocol
from eval.datasets.base import Dataset, DatasetError
from ovseg_demo.errors import MethodError
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.vocabulary import Vocabulary
from tests.helpers import evaluation_fakes as fakes


class Able(MethodOptions):
    ensemble: float | None = Field(None, ge=0, le=1)


class Unable(Able):
    withheld: ClassVar[frozenset[str]] = frozenset({"unlabelled"})

    side: int = Field(3, ge=1, le=9)
    word: str = ""


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    for name, options in (("able", Able), ("unable", Unable)):
        monkeypatch.setitem(registry.REGISTRY, name, MethodSpec(name, name, "", (), lambda _: fakes.Reader(), options))


def benchmark(name: str = "folder", background: int | None = None, rivals: tuple[str, ...] = ()) -> Dataset:
    words = Vocabulary(("cat", "background"), ((), ()))
    return Dataset(name, (), words, lambda path: None, background, rivals=rivals)


def chosen(dataset: Dataset, **values) -> dict:
    options = protocol.options_by_method(["able", "unable"], values, dataset)
    assert "unlabelled" not in options["unable"].given()
    return options["able"].given()


def test_every_pixel_is_labelled_where_nothing_is_background():
    assert chosen(benchmark())["unlabelled"] == 0
    assert chosen(benchmark(background=1, rivals=("tree",)))["unlabelled"] == 0


def test_the_method_decides_what_is_background():
    assert chosen(benchmark(background=1))["unlabelled"] == Able().unlabelled > 0


@pytest.mark.parametrize("background", [None, 1])
def test_a_given_value_stands(background):
    assert chosen(benchmark(background=background), unlabelled="0.3")["unlabelled"] == 0.3


@pytest.mark.parametrize(("dataset", "weight"), [("voc_20", 0.45), ("context_459", 0.6), ("ade20k_847", 0.7)])
def test_the_papers_weights_of_clip(dataset, weight):
    assert chosen(benchmark(dataset), ensemble="published")["ensemble"] == weight
    assert chosen(benchmark(dataset), ensemble="0.3")["ensemble"] == 0.3
    assert chosen(benchmark(dataset))["ensemble"] is None


def test_a_benchmark_without_a_published_weight():
    with pytest.raises(
        DatasetError, match=r"No ensemble was published for voc_21, only for ade20k_150, .*--ensemble a"
    ):
        chosen(benchmark("voc_21"), ensemble="published")


def test_only_what_may_be_published_is_looked_up():
    options = protocol.options_by_method(["unable"], {"word": "published"}, benchmark())
    assert options["unable"].given()["word"] == "published"


def segclip(dataset: Dataset, **values) -> float:
    return protocol.options_by_method(["segclip"], values, dataset)["segclip"].given()["background"]


@pytest.mark.parametrize(("dataset", "threshold"), [("voc_21", 0.8), ("context_60", 0.25), ("coco_object_81", 0.65)])
def test_segclips_protocol(dataset, threshold):
    """Its words, the background being the first label and counted, and the thresholds of its released code."""
    spec = datasets.DATASETS[dataset]
    assert (spec.names, spec.publisher, spec.background, spec.rivals) == (dataset, "segclip", 0, 0)
    assert class_names.load_class_names(f"{dataset}.segclip").names[0] == "background"
    assert segclip(benchmark(dataset, background=0), background="published") == threshold
    assert segclip(benchmark(dataset, background=0)) == 0.25
    with pytest.raises(DatasetError, match=r"No background was published for folder, only for .*voc_21"):
        segclip(benchmark(background=0), background="published")


def test_segclip_labels_every_pixel_where_nothing_is_background():
    assert segclip(benchmark()) == 0
    assert segclip(benchmark(), background=0.6) == 0.6


def test_an_option_is_swept_from_limit_to_limit_and_over_the_published_value():
    voc = benchmark("voc_20")
    sweep = protocol.sweep_by_method(["able"], {"ensemble": "sweep", "unlabelled": "0.3"}, voc)["able"]
    assert sweep.values == tuple(round(0.05 * step, 2) for step in range(21))
    assert (sweep.option, sweep.published) == ("ensemble", 0.45)
    assert sweep.given() == {"unlabelled": 0.3, "ensemble": list(sweep.values)}
    assert sweep.at(0.1).given() == {"unlabelled": 0.3, "ensemble": 0.1}


def test_a_published_value_between_two_steps_is_swept_too(monkeypatch):
    published = replace(datasets.DATASETS["voc_20"], published={"ensemble": 0.47})
    monkeypatch.setitem(datasets.DATASETS, "voc_20", published)
    assert protocol.sweep_by_method(["able"], {"ensemble": "sweep"}, benchmark("voc_20"))["able"].values[9:12] == (
        *(0.45, 0.47, 0.5),
    )


def test_the_other_options_of_a_sweep_are_the_protocols():
    given = {"ensemble": "sweep"}
    assert protocol.sweep_by_method(["able"], given, benchmark())["able"].at(0.5).given()["unlabelled"] == 0
    sweep = protocol.sweep_by_method(["able"], {"unlabelled": "sweep", "ensemble": "published"}, benchmark("voc_20"))
    assert sweep["able"].at(0.4).given() == {"unlabelled": 0.4, "ensemble": 0.45}


@pytest.mark.parametrize("values", [{}, {"ensemble": 0.5}, {"word": "sweep"}])
def test_without_a_number_to_sweep_there_is_no_sweep(values):
    assert protocol.sweep_by_method(["unable"], values, benchmark()) == {}


def test_whole_numbers_are_not_swept():
    assert protocol.sweep_by_method(["unable"], {"side": "sweep"}, benchmark()) == {}
    with pytest.raises(MethodError, match="Side must lie between 1 and 9; got 'sweep'"):
        protocol.options_by_method(["unable"], {"side": "sweep"}, benchmark())


def test_one_option_that_all_methods_have_is_swept():
    with pytest.raises(MethodError, match="Only one option can be swept at a time, not unlabelled and ensemble"):
        protocol.sweep_by_method(["able"], {"unlabelled": "sweep", "ensemble": "sweep"}, benchmark())
    with pytest.raises(MethodError, match="unable has no option 'unlabelled'; these have it: "):
        protocol.sweep_by_method(["able", "unable"], {"unlabelled": "sweep"}, benchmark())
