"""Features of whole photos in files: those that CLIP gives, computed once, and the losses that follow from them."""

from pathlib import Path

import pytest
import torch

from ovseg_demo.methods.mrovseg.model import MROVSeg
from tests.helpers.mini_data import KEYS, two_halves, write_labelled_set
from train.common.augmentation import whole_view
from train.common.labelled_batches import find_labelled_sets, training_rows
from train.common.run_folder import RunFolder
from train.common.sampling import StepGenerator
from train.mrovseg import fixed_views, recipes
from train.mrovseg.fixed_views import FixedViews
from train.mrovseg.initial_model import tiny_model
from train.mrovseg.recipes import RECIPES
from train.mrovseg.training import MROVSegTraining

TINY = recipes.smoke(RECIPES["b"])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two sets of one photo each."""
    folder = tmp_path_factory.mktemp("data")
    animals = {KEYS[0]: two_halves(0, 2)}
    write_labelled_set(folder / "animals_train", ["cat", "background", "dog"], animals, "cat_mirror")
    write_labelled_set(folder / "street_train", ["road", "sky"], {KEYS[0]: two_halves(1, 255)}, "tram_bus_street")
    return find_labelled_sets(folder, [])


def model_without(*parts: str) -> MROVSeg:
    return tiny_model(recipes.without(TINY, list(parts)).settings, 0)[1]


def drawn(sets, model: MROVSeg, folder: Path, precision: str = "no") -> dict:
    """A batch of two photos."""
    cache = fixed_views.feature_cache(RunFolder(folder, {}), model)
    fixed_views.encode_photos(sets, model, TINY.views, precision, cache)
    return dict(FixedViews(sets, 2, cache)(StepGenerator(0, 0, 0, 1)))


@pytest.mark.parametrize("without", [(), ("slices",), ("masked-attention",)])
def test_losses_are_those_of_the_photos_themselves(sets, tmp_path, without):
    model = model_without(*without)
    kept = drawn(sets, model, tmp_path)
    photos = []
    for number in kept["sets"]:
        pixels, labels = sets[number].load(sets[number].dataset.samples[0])
        photos.append(whole_view(pixels, training_rows(sets[number])[labels], TINY.views))
    images, labels = map(torch.stack, zip(*photos, strict=True))
    assert torch.equal(labels, kept["labels"])
    assert labels.unique().numel() > 2

    texts = [torch.eye(32)[: sum(source.training_classes)] for source in sets]
    net = MROVSegTraining(model, texts, TINY.terms)
    torch.manual_seed(1)
    expected = net({"images": images, "labels": labels, "sets": kept["sets"]})
    torch.manual_seed(1)
    for name, value in net(kept).items():
        torch.testing.assert_close(value, expected[name])


def test_photos_are_read_once(sets, tmp_path, monkeypatch):
    model = model_without()
    first = drawn(sets, model, tmp_path)
    monkeypatch.setattr(model, "features", None)
    again = drawn(sets, model, tmp_path)
    assert torch.equal(again["class_token"], first["class_token"])


def test_a_single_resolution_is_kept_once(sets, tmp_path):
    kept = drawn(sets, model_without("slices"), tmp_path)
    assert kept["high"] is kept["low"]


def test_half_precision_is_kept_as_such(sets, tmp_path):
    kept = drawn(sets, model_without(), tmp_path, "bf16")
    assert {value.dtype for maps in (kept["low"], kept["high"]) for value in maps.values()} == {torch.bfloat16}
