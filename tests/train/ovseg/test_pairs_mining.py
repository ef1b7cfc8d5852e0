"""Words find their regions; people's labels become pairs; photos say what is wrong with them."""

import json

import numpy as np
import pytest
from PIL import Image

from eval.datasets.base import DatasetError
from tests.helpers.mini_data import HELD_OUT, KEYS, two_halves, write_labelled_set
from tests.helpers.pairs_data import ByColour, Quarters, quarters
from train.common.image_sets import described_sets, labelled_sets
from train.ovseg.pairs.mining import CaptionPairs, LabelPairs, WordMatcher

CAPTIONS = ["Grass by the water .", "Snow ; grass .", "nothing"]


class Words:
    """In place of the parser: known words of a caption."""

    def words(self, captions):
        spelt = [(w, c) for c in captions for w in c.lower().split() if w in ("grass", "water", "snow")]
        return dict(reversed(spelt))


@pytest.fixture
def captioned(tmp_path):
    folder = tmp_path / "told_train"
    (folder / "images").mkdir(parents=True)
    (folder / "captions.json").write_text(json.dumps({"a": CAPTIONS, "b": ["nothing"]}))
    for key in "ab":
        quarters(folder / f"images/{key}.jpg")
    return described_sets(tmp_path, kinds=("captions",))


def test_each_word_gets_the_region_that_is_most_like_it(captioned):
    vlm = ByColour()
    source = CaptionPairs(captioned, 5, Words(), WordMatcher(Quarters(), vlm))
    assert len(source) == 2
    found = {pair.word: pair for pair in source.pairs(0)}
    assert {word: pair.box for word, pair in found.items()} == {
        "grass": (32, 0, 64, 32),
        "water": (0, 32, 32, 64),
        "snow": (32, 32, 64, 64),
    }
    for pair in found.values():
        assert pair.mask.all()
        assert pair.mask.shape == pair.crop.shape[:2] == (32, 32)
        assert pair.photo == "told_train/a"
        assert -20 < pair.score < 0
        assert pair.score == round(pair.score, 3)
    assert found["grass"].caption == CAPTIONS[0]
    assert found["grass"].crop.mean((0, 1)).argmax() == 1
    assert source.pairs(1) == []
    source.pairs(0)
    assert sorted(vlm.read) == ["grass", "snow", "water"], "a word is embedded once"
    assert vlm.batches == [1, 1, 1], "and alone, so that its score does not depend on other words"
    assert source.photo(1).name == "b.jpg"


def test_one_caption_is_the_first(captioned):
    source = CaptionPairs(captioned, 1, Words(), WordMatcher(Quarters(), ByColour()))
    assert {pair.word for pair in source.pairs(0)} == {"grass", "water"}


def test_a_photo_without_masks_has_no_pairs(captioned):

    class Small(Quarters):
        """Only the mask of a single pixel."""

        def propose(self, image, report):
            found = super().propose(image, report)
            return type(found)(found.packed[:1], found.scores[:1], found.width)

    source = CaptionPairs(captioned, 5, Words(), WordMatcher(Small(), ByColour()))
    assert source.pairs(0) == []


def test_a_photo_that_cannot_be_read_is_named(captioned):
    captioned[0].photos[0].write_bytes(b"no photo")
    source = CaptionPairs(captioned, 5, Words(), WordMatcher(Quarters(), ByColour()))
    with pytest.raises(DatasetError, match=r"told_train/images/a\.jpg cannot be used"):
        source.pairs(0)


def test_labels_are_regions_but_background_is_not(tmp_path):
    names = ["cat", "sofa", "background"]
    masks = {KEYS[0]: two_halves(0, 1), KEYS[1]: two_halves(2, 255), HELD_OUT[0]: two_halves(0, 1)}
    write_labelled_set(tmp_path / "some_train", names, masks)
    source = LabelPairs(labelled_sets(tmp_path))
    assert len(source) == 2, "photos that are held out are not mined"
    found = source.pairs(0)
    assert [(pair.word, pair.box, pair.score, pair.caption) for pair in found] == [
        ("cat", (0, 0, 48, 72), 1.0, ""),
        ("sofa", (48, 0, 96, 72), 1.0, ""),
    ]
    pixels = np.asarray(Image.open(source.photo(0)))
    np.testing.assert_array_equal(found[1].crop, pixels[:, 48:])
    assert found[0].photo == f"some_train/{KEYS[0]}"
    assert source.pairs(1) == []
