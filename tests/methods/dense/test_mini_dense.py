import numpy as np
import pytest

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.ui import gallery

METHOD = "mini-dense"


def segment(engine, photo, words, unlabelled=0.0, **others):
    return engine.segment(photo, vocabulary.parse(words), METHOD, MethodOptions(unlabelled=unlabelled), **others)


@pytest.fixture
def pizza():
    return image.load(gallery.FOLDER / "pizza.jpg")


@pytest.mark.parametrize("shape", [(1, 1), (10, 3000), (3000, 10), (33, 31), (16, 900)])
def test_photos_of_every_shape_have_a_result(engine, random, shape):
    photo = image.from_array(random.integers(0, 255, (*shape, 3), np.uint8))
    result = segment(engine, photo, "cat, dog, sky")
    assert result.size == photo.pixels.shape[:2]
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert ((result.scores > 0.33) & (result.scores <= 1)).all()
    assert np.allclose(result.top_scores.sum(0), 1, atol=1e-4)


def test_every_pixel_has_its_best_class_and_score(engine, pizza):
    result = segment(engine, pizza, "pizza, horse, bus, table, sky, sea")
    assert result.labels.min() >= 0
    assert np.array_equal(result.labels, result.top_classes[0])
    assert np.array_equal(result.scores, result.top_scores[0])
    assert (np.diff(result.top_scores, axis=0) <= 0).all()


def test_one_word_is_left_out_where_background_words_fit_better(engine, pizza):
    result = segment(engine, pizza, "pizza", unlabelled=0.5)
    assert result.names == ("pizza",)
    assert set(np.unique(result.labels)) == {-1, 0}
    assert (result.scores[result.labels == -1] == 0).all()
    assert (result.scores[result.labels == 0] >= 0.5).all()
    assert result.top_classes.shape == (1, *result.size)


def test_synonyms_are_one_class(engine, pizza):
    either = segment(engine, pizza, "food|pizza, horse|bus")
    apart = segment(engine, pizza, "food, pizza, horse, bus")
    assert either.names == ("food", "horse")
    assert (either.labels == np.isin(apart.labels, (2, 3))).mean() > 0.99


def test_the_photo_is_read_once(engine, random):
    photo = image.from_array(random.integers(0, 255, (64, 48, 3), np.uint8))
    first = segment(engine, photo, "cat, dog")
    assert first.timings["Reading the photo"] > 0
    news = []
    again = segment(engine, photo, "cat, sky", listener=news.append)
    assert again.timings["Reading the photo"] == 0
    assert "Reading the photo" in {progress.stage for progress in news if progress.cached}
    other = segment(engine, image.from_array(photo.pixels[::-1].copy()), "cat, dog")
    assert other.timings["Reading the photo"] > 0
    assert np.array_equal(segment(engine, photo, "cat, dog").labels, first.labels)
