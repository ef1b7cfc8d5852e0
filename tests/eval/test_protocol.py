from typing import ClassVar

import pytest
from pydantic import Field

from eval import protocol
from eval.datasets.base import Dataset, DatasetError
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.vocabulary import Vocabulary
from tests.helpers import evaluation_fakes as fakes


class Able(MethodOptions):
    unlabelled: float | None = Field(None, ge=0, le=1)
    ensemble: float | None = Field(None, ge=0, le=1)


class Unable(Able):
    withheld: ClassVar[frozenset[str]] = frozenset({"unlabelled"})


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
    assert chosen(benchmark(background=1))["unlabelled"] is None


@pytest.mark.parametrize("background", [None, 1])
def test_a_given_value_stands(background):
    assert chosen(benchmark(background=background), unlabelled="0.3")["unlabelled"] == 0.3


@pytest.mark.parametrize(("dataset", "weight"), [("voc_20", 0.45), ("context_459", 0.6), ("ade20k_847", 0.7)])
def test_the_papers_weights_of_clip(dataset, weight):
    assert chosen(benchmark(dataset), ensemble="published")["ensemble"] == weight
    assert chosen(benchmark(dataset), ensemble="0.3")["ensemble"] == 0.3
    assert chosen(benchmark(dataset))["ensemble"] is None


def test_a_benchmark_without_a_published_weight():
    with pytest.raises(DatasetError, match="published no weight of CLIP for voc_21"):
        chosen(benchmark("voc_21"), ensemble="published")
