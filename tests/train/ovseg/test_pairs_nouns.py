"""Nouns of captions: their form, what they are compounded with, and what is no thing."""

import sys

import pytest

from train.common.run_folder import TrainingError
from train.ovseg.pairs import nouns
from train.ovseg.pairs.nouns import NounParser


@pytest.fixture(scope="module")
def parser() -> NounParser:
    return NounParser()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Two polar bears and a fire hydrant .", ["polar bear", "fire hydrant"]),
        ("Three men and some children ride wolves .", ["man", "child", "wolf"]),
        ("A boy in a red T-shirt holds a Frisbee", ["boy", "t-shirt", "frisbee"]),
        ("The happy woman wears a black tank top .", ["woman", "tank top"]),
        ("A girl in jeans , sunglasses and new clothes", ["girl", "jeans", "sunglasses", "clothes"]),
        ("A big dog by the swimming pool and a hot dog", ["dog", "swimming pool", "hot dog"]),
        ("the dogs' owner", ["dog", "owner"]),
        ("A man drinks beer from wine and beer bottles", ["man", "beer", "bottle"]),
    ],
)
def test_nouns_are_singular_with_what_they_are_compounded_with(parser, caption, words):
    assert set(words) <= set(parser.words([caption]))
    assert not {"bear", "shirt", "top", "hydrant", "pool", "wine and beer bottle"} & set(parser.words([caption]))


def test_no_mask_is_looked_for_what_no_mask_can_show(parser):
    found = parser.words(["A group of people in front of a house , a man in red in the background of the picture ."])
    assert list(found) == ["people", "house", "man"]
    assert "couple" in parser.words(["A couple kisses under a tree ."])
    assert "couple" not in parser.words(["A couple of cars under a tree ."])


def test_a_word_comes_once_with_the_first_caption_that_has_it(parser):
    captions = ["A dog is running .", "Two dogs on the grass .", "Wet grass ."]
    assert parser.words(captions) == {"dog": captions[0], "grass": captions[1]}


@pytest.mark.parametrize("captions", [[], [""], ["-"], [". . ."], ["x 7 !"], ["running quickly"]])
def test_captions_without_nouns_have_none(parser, captions):
    assert parser.words(captions) == {}


def test_a_missing_parser_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, nouns._ENGLISH, None)
    with pytest.raises(
        TrainingError, match=r"^train\.ovseg\.pairs needs more .*: pip install -r requirements-train\.txt$"
    ):
        NounParser()
