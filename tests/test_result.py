from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

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
    assert larger.known is None


def test_resizing_keeps_what_is_known():
    known = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)
    larger = replace(example(), known=known, presence=np.ones(3, np.float32)).resized((4, 6))
    assert np.array_equal(larger.known[1::2, ::2], known)
    assert np.array_equal(larger.leave_out(0.3).labels[::2, ::2], [[-1, -1, 2], [-1, 2, 2]])
    assert larger.presence.tolist() == [1, 1, 1]


def test_pixels_that_show_none_of_the_classes_are_left_out():
    known = np.array([[0.25, 0.5, 1.0], [0.9, 0.0, 0.75]], np.float32)
    before = replace(example(), known=known, presence=np.ones(3, np.float32))
    found = before.leave_out(0.5)
    assert found.labels.tolist() == [[-1, 0, 2], [-1, -1, 2]]  # exactly the minimum is enough
    assert np.allclose(found.scores, [[0, 0.35, 0.9], [0, 0, 0.45]])
    assert np.allclose(found.top_scores, before.top_scores * known)
    assert np.array_equal(found.top_classes, before.top_classes)
    assert (found.labels.dtype, found.scores.dtype, found.top_scores.dtype) == (np.int32, np.float32, np.float32)
    assert found.known is None
    assert found.leave_out(1.0) is found
    assert found.presence is before.presence
    assert np.array_equal(before.leave_out(0.0).labels, before.labels)


def test_what_does_not_tell_is_left_as_it_is():
    result = example()
    assert result.leave_out(1.0) is result


def test_nothing_labelled_has_an_empty_summary():
    empty = Segmentation(("a",), np.full((2, 2), -1, np.int32), *[np.zeros((2, 2), np.float32)] * 3)
    assert empty.summary() == []


def probabilities(classes: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return (4 * torch.randn(classes, *size, generator=torch.Generator().manual_seed(seed))).softmax(0)


@pytest.mark.parametrize(
    ("classes", "source", "size"),
    [
        (7, (9, 12), (150, 130)),  # three bands
        (7, (40, 30), (64, 64)),
        (7, (40, 30), (65, 20)),  # the last band is one row
        (3, (200, 4), (20, 90)),
        (2, (1, 1), (1, 1)),
        (6, (3, 5), (1, 700)),
        (1, (4, 4), (70, 3)),
    ],
)
def test_probabilities_are_interpolated_as_a_whole(classes, source, size):
    given = probabilities(classes, source)
    names = tuple("abcdefg"[:classes])
    found = Segmentation.from_scores(names, given, size)
    whole = F.interpolate(given[None], size, mode="bilinear", align_corners=False)[0]
    best, labels = (each.numpy() for each in whole.max(0))
    kept = min(5, classes)
    values = whole.topk(kept, 0).values.numpy()
    clear = np.ones(size, bool) if kept == 1 else values[0] - values[1] > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(found.labels[clear], labels[clear])
    assert np.allclose(found.scores, best, atol=1e-5)
    assert found.top_classes.shape == found.top_scores.shape == (kept, *size)
    assert np.allclose(found.top_scores, values, atol=1e-5)
    told = np.take_along_axis(whole.numpy(), found.top_classes, 0)
    assert np.allclose(told, values, atol=1e-5)
    types = (found.labels.dtype, found.scores.dtype, found.top_classes.dtype, found.top_scores.dtype)
    assert types == (np.int32, np.float32, np.int32, np.float32)


def test_a_sure_result_is_never_surer_than_one():
    given = torch.ones(1, 3, 7)
    found = Segmentation.from_scores(("a",), given, (200, 333))
    assert found.scores.max() == found.top_scores.max() == 1


def test_a_result_of_some_classes_becomes_one_of_all():
    given = torch.tensor([[0.6, 0.2], [0.4, 0.8]])[:, None]
    part = replace(
        Segmentation.from_scores(("a", "b"), given, (1, 2)),
        known=np.array([[0.5, 0.25]], np.float32),
        presence=np.array([0.9, 0.1], np.float32),
    )
    found = part.in_vocabulary(("x", "a", "y", "b"), (1, 3, 9))
    assert found.names == ("x", "a", "y", "b")
    assert found.labels.tolist() == [[1, 3]]
    assert found.known is part.known
    assert np.allclose(found.presence, [0, 0.9, 0, 0.1])
    assert found.presence.dtype == np.float32
    assert found.top_classes.tolist() == [[[1, 3]], [[3, 1]]]
    assert (found.labels.dtype, found.top_classes.dtype) == (np.int32, np.int32)
    assert np.allclose(found.top_scores, [[[0.6, 0.8]], [[0.4, 0.2]]])


def test_independent_scores_are_confidences_as_they_are():
    given = torch.tensor([0.6, 0.3])[:, None, None]
    shared, own = (Segmentation.from_scores(("a", "b"), given, (1, 2), independent=each) for each in (False, True))
    assert np.allclose(shared.scores, 0.6 / 0.9)
    assert np.allclose(own.scores, 0.6)
    assert np.allclose(own.top_scores[:, 0, 0], [0.6, 0.3])


def test_confidences_that_are_probabilities_are_not_weighed_again():
    independent = Segmentation.from_scores(("a", "b"), torch.tensor([[[0.6]], [[0.2]]]), (1, 1), independent=True)
    left = replace(independent, known=np.full((1, 1), 0.6, np.float32)).leave_out(0.5)
    assert left.scores == pytest.approx(0.6)
    assert left.top_scores[:, 0, 0] == pytest.approx([0.6, 0.2])
