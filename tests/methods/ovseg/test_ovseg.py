"""OVSeg over a stand-in maker and model whose answers are known."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import MethodError
from ovseg_demo.methods.ovseg.method import OVSegWithProposals
from ovseg_demo.methods.ovseg.options import MaskFormerOptions, SamOptions
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress

COLOURS = {"red": (255, 0, 0), "scarlet": (230, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Stripes:
    """Four vertical stripes."""

    name = "stripes"
    calls = 0

    def propose(self, pixels, report):
        self.calls += 1
        report(0.5)
        stripes = np.arange(pixels.shape[1]) * 4 // pixels.shape[1]
        masks = np.stack([np.broadcast_to(stripes == i, pixels.shape[:2]) for i in range(4)])
        return MaskProposals.from_masks(masks, np.ones(4))


class MeanColour:
    """A word is a colour, a region its mean colour, likeness their negated distance. Background words are grey."""

    name = "mean-colour"
    calibration = UNCALIBRATED

    def __init__(self):
        self.regions_read = 0
        self.words_read: list[str] = []

    def embed_texts(self, words: Sequence[str]):
        self.words_read += [word for word in words if word in COLOURS]
        return torch.tensor([COLOURS.get(word, (128, 128, 128)) for word in words]).float()

    def embed_regions(self, pixels, proposals, report):
        self.regions_read += len(proposals)
        return torch.tensor(np.array([pixels[m].mean(0) for m in proposals.masks()])).float()

    def logits(self, regions, texts):
        return -torch.cdist(regions, texts) / 10


@pytest.fixture
def photo():
    pixels = np.zeros((4, 8, 3), np.uint8)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]):
        pixels[:, 2 * i : 2 * i + 2] = colour
    return image.from_array(pixels)


class House:
    """A method with its cache."""

    def __init__(self):
        self.maker, self.model, self.cache = Stripes(), MeanColour(), Cache(10**6)
        self.method = OVSegWithProposals({"balanced": self.maker}, self.model)

    def segment(self, photo, words, granularity=0.8):
        stages = Stages(self.cache, SerialWorker(), ignore_progress)
        return self.method.segment(photo, vocabulary.parse(words), SamOptions(granularity=granularity), stages), stages


def test_regions_are_named(photo):
    result, _ = House().segment(photo, "red, green, blue")
    assert result.labels[0, :6].tolist() == [0, 0, 1, 1, 2, 2]
    assert result.scores[0, 0] > 0.99


def test_a_class_scores_as_its_best_word(photo):
    result, _ = House().segment(photo, "blue, scarlet|red, green")
    assert result.names == ("blue", "scarlet", "green")
    assert result.labels[0, :6].tolist() == [1, 1, 2, 2, 0, 0]
    alone, _ = House().segment(photo, "blue, red, green")
    assert np.allclose(result.scores[0, :2], alone.scores[0, :2], atol=1e-6)


def test_a_single_class_is_drawn_where_it_beats_the_background_words(photo):
    result, _ = House().segment(photo, "red")
    assert result.names == ("red",)
    assert result.labels[0].tolist() == [0, 0, -1, -1, -1, -1, -1, -1]
    assert result.presence[0] > 0.99


def test_without_a_dense_model_the_masks_say_what_is_known(photo):
    result, _ = House().segment(photo, "red, green, blue", granularity=0.0)
    assert result.known.shape == photo.pixels.shape[:2]
    assert (result.known[:, :6] > 0.99).all()
    assert (result.known[:, 6:] < 0.01).all()  # white is nearer to grey than to any of the words
    assert (result.presence > 0.99).all()
    absent, _ = House().segment(image.from_array(photo.pixels[:, 2:]), "red, green")
    assert np.allclose(absent.presence, [0, 1], atol=0.01)


def test_only_what_changed_is_computed_again(photo):
    house = House()
    house.segment(photo, "red, green")
    _, stages = house.segment(photo, "red, green", granularity=0.1)
    assert (house.maker.calls, house.model.regions_read, house.model.words_read) == (1, 4, ["red", "green"])
    assert {k for k, v in stages.timings.items() if v > 0} == {"Fusing"}
    house.segment(photo, "red, blue")
    assert (house.maker.calls, house.model.regions_read) == (1, 4)
    assert house.model.words_read == ["red", "green", "blue"]
    house.segment(image.from_array(photo.pixels[:, ::-1].copy()), "red")
    assert (house.maker.calls, house.model.regions_read) == (2, 8)


def test_automatic_granularity_is_told_and_is_what_is_painted(photo):
    house = House()
    automatic, stages = house.segment(photo, "red, green, blue", granularity=None)
    choice = automatic.chosen["granularity"]
    fixed, _ = house.segment(photo, "red, green, blue", granularity=choice.value)
    assert choice.reason.startswith(f"{choice.value}, because ")
    assert fixed.chosen == {}
    assert np.array_equal(automatic.labels, fixed.labels)
    assert not stages.timings.keys() - house.segment(photo, "red, green, blue")[1].timings.keys()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("option", ["granularity", "ensemble"])
def test_options_have_a_range(option, value):
    with pytest.raises(MethodError, match=f"{option.capitalize()} must lie between 0 and 1"):
        MaskFormerOptions(**{option: value})


def test_proposal_settings_have_names():
    with pytest.raises(MethodError, match="one of fast, balanced, thorough; got 'perfect'"):
        SamOptions(proposals="perfect")
