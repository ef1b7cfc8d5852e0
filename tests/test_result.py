import numpy as np

from ovseg_demo.result import Segmentation


def example() -> Segmentation:
    labels = np.array([[0, 0, 2], [-1, 2, 2]], np.int32)
    scores = np.array([[0.5, 0.7, 0.9], [0, 0.9, 0.6]], np.float32)
    top = np.stack([np.maximum(labels, 0), np.ones_like(labels)])
    return Segmentation(("a", "b", "c"), labels, scores, top, np.stack([scores, scores / 2]))


def test_summary_lists_what_occurs_largest_first():
    largest, second = example().summary()
    assert (largest.name, largest.index, largest.pixels, largest.share) == ("c", 2, 3, 0.5)
    assert np.isclose(largest.confidence, 0.8)
    assert (second.name, second.pixels) == ("a", 2)
    assert np.isclose(second.confidence, 0.6)


def test_resizing_repeats_pixels_and_returns():
    larger = example().resized((4, 6))
    assert larger.size == (4, 6)
    assert np.array_equal(larger.labels[::2, ::2], example().labels)
    assert np.array_equal(larger.labels[1::2, 1::2], example().labels)
    assert larger.top_classes.shape == larger.top_scores.shape == (0, 4, 6)
    assert np.array_equal(larger.resized((2, 3)).labels, example().labels)


def test_nothing_labelled_has_an_empty_summary():
    empty = Segmentation(("a",), np.full((2, 2), -1, np.int32), *[np.zeros((2, 2), np.float32)] * 3)
    assert empty.summary() == []
