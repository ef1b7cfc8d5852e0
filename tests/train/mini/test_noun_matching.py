from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.proposals.base import MaskProposals
from tests.helpers.mini_data import shrunk
from train.common.image_sets import DescribedSet
from train.mini import views
from train.mini.noun_matching import NounMatcher
from train.mini.nouns import NOUNS


class Halves:
    """Proposes the left half, and a speck that is no region."""

    name = "halves"

    def propose(self, pixels, report):
        masks = np.zeros((2, *pixels.shape[:2]), bool)
        masks[0, :, : pixels.shape[1] // 2] = masks[1, 0, 0] = True
        return MaskProposals.from_masks(masks, np.ones(2))


class Nothing:
    name = "nothing"

    def propose(self, pixels, report):
        return MaskProposals.from_masks(np.zeros((0, *pixels.shape[:2]), bool), np.zeros(0))


@pytest.fixture(scope="module")
def matcher() -> NounMatcher:
    return NounMatcher(Halves(), ImageTower(), TextTower())


@pytest.fixture
def pizzas(tmp_path) -> Path:
    """A photo that is the same on both sides."""
    double = np.tile(np.array(shrunk("pizza", (160, 160))), (1, 2, 1))
    Image.fromarray(double).save(tmp_path / "pizzas.png")
    return tmp_path / "pizzas.png"


def found(matcher: NounMatcher, *captions: str) -> list[str]:
    return [NOUNS[row] for row in matcher.finder.agreed(captions)]


@pytest.mark.parametrize(
    ("captions", "nouns"),
    [
        (["A pizza .", "the pizza is hot"], ["pizza"]),
        (["A pizza .", "two pizzas"], ["pizza"]),
        (["A pizza .", "no food at all"], []),  # one person alone says so
        (["Pizza"], ["pizza"]),
        (["a polar bear", "the polar bear swims"], ["polar bear"]),
        (["pizzeria", "pizzeria"], []),
        (["", "..."], []),
        (["pizza and pizza", "nothing"], []),
    ],
)
def test_nouns_are_what_captions_agree_on(matcher, captions, nouns):
    assert found(matcher, *captions) == nouns


def test_photos_with_the_rarest_nouns_come_first(matcher):
    texts = [("a dog",), ("a dog",), ("a dog and a pizza",), ("words",), ("a zebra",), ("a dog",)]
    source = DescribedSet("any", tuple(Path(f"{i}.jpg") for i in range(6)), texts, False)
    for count, numbers in ((0, []), (1, [2]), (2, [2, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 4, 5])):
        chosen = matcher.finder.rarest(source, count)
        assert chosen.photos == tuple(source.photos[i] for i in numbers)
        assert chosen.texts == tuple(texts[i] for i in numbers)


def test_a_noun_is_matched_where_it_is_likely(matcher, pizzas):
    captions = [("a pizza", "pizza with a goldfish", "goldfish"), ("nothing",)]
    source = DescribedSet("any", (pizzas, Path("never opened.jpg")), captions, False)
    [[(number, row, crops)], nothing] = matcher.matches(source)
    assert (number, NOUNS[row], nothing) == (0, "pizza", [])
    pixels = np.array(shrunk("pizza", (160, 160)))
    for crop, view in zip(crops, views.REGION_VIEWS, strict=True):
        assert crop.shape == (1, 3, views.CROP_SIDE, views.CROP_SIDE)
        if not view.margin:
            torch.testing.assert_close(crop, views.region_view(pixels, np.ones((160, 160), bool), view))


def test_without_masks_nothing_is_matched(matcher, pizzas):
    nothing = NounMatcher(Nothing(), matcher._tower, TextTower())
    assert list(nothing.matches(DescribedSet("any", (pizzas,), (("pizza",),), False))) == [[]]
