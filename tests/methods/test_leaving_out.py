"""Leaving out what none of the words fits, by the bundled methods on a photo of a pizza."""

import numpy as np
import pytest

from eval.absent_words.measurement import PRESENT
from ovseg_demo import image, vocabulary
from ovseg_demo.methods import registry
from ovseg_demo.result import Segmentation
from ovseg_demo.ui import gallery

METHODS = ("ovseg-sam-mini", "mini-dense", "sed-mini", "mrovseg-mini", "tagclip-mini")
FINAL_STAGES = {"Fusing", "Naming pixels"}


@pytest.fixture(scope="module")
def pizza() -> image.Photo:
    """A quarter as large as it is, so that masks are found fast."""
    return image.from_array(image.load(gallery.FOLDER / "pizza.jpg").pixels[::4, ::4].copy())


@pytest.fixture(scope="module", params=METHODS)
def segment(request, engine, pizza):
    fast = {"proposals": "fast"} if request.param == "ovseg-sam-mini" else {}

    def segment(words: str, **options) -> Segmentation:
        return engine.segment(
            pizza, vocabulary.parse(words), request.param, registry.read_options(request.param, fast | options)
        )

    return segment


@pytest.mark.parametrize("words", ["pizza", "horse, pizza", "pizza|margherita, horse, bus"])
def test_a_word_that_is_there_is_kept(segment, words):
    found = segment(words)
    index = next(i for i, name in enumerate(found.names) if name == "pizza")
    assert found.mask(index).mean() > 0.4
    assert found.presence[index] > 0.9
    assert (np.delete(found.presence, index) < PRESENT / 2).all()
    assert found.known is None
    assert found.scores[found.mask(index)].min() > 0


@pytest.mark.parametrize("words", ["horse", "elephant, bus"])
def test_words_that_are_not_there_get_hardly_a_pixel(segment, words):
    found = segment(words)
    assert (found.labels >= 0).mean() < 0.05
    assert (found.presence < PRESENT / 2).all()


def test_another_strength_reads_neither_photo_nor_words(segment):
    before = segment("pizza, horse", unlabelled=0.1)
    after = segment("pizza, horse", unlabelled=0.9)
    whole = segment("pizza, horse", unlabelled=0)
    slow = {stage: seconds for stage, seconds in after.timings.items() if stage not in FINAL_STAGES}
    assert {"Reading words", "Reading background words"} <= slow.keys()
    assert not any(slow.values())
    assert set(np.unique(after.labels)) <= {-1, 0}
    labelled = [(found.labels >= 0) for found in (after, before, whole)]
    assert (labelled[0] <= labelled[1]).all()
    assert (labelled[1] <= labelled[2]).all()
    assert labelled[0].sum() < labelled[1].sum() < labelled[2].sum() == whole.labels.size
    assert np.array_equal(after.presence, whole.presence)
    assert np.array_equal(before.labels[labelled[1]], whole.labels[labelled[1]])
