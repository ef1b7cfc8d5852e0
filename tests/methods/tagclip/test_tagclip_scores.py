"""From mask logits to scores, against the formula written out pixel by pixel."""

import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.methods.tagclip import scores as module
from ovseg_demo.methods.tagclip.decoder import MaskLogits
from ovseg_demo.methods.tagclip.scores import ScoreRule, class_scores, trusty_map
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto

CLASSES = 11  # more than are enlarged at once
SEEN = tuple(index % 3 != 0 for index in range(CLASSES))
ORIGINS = ((0, 0), (0, 6))
SIDE = (8, 8)


@pytest.fixture
def windows() -> WindowedPhoto:
    return WindowedPhoto(SIDE, ORIGINS, ImageEmbeddings(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1)))


@pytest.fixture
def logits() -> MaskLogits:
    generator = torch.Generator().manual_seed(0)
    return MaskLogits(
        3 * torch.randn(2, CLASSES, 2, 2, generator=generator), 3 * torch.randn(2, 2, 2, generator=generator)
    )


def enlarged(maps):
    return F.interpolate(maps[None], SIDE, mode="bilinear", align_corners=False)[0]


def by_hand(logits, seen=SEEN, penalty=0.0, trusty=True):
    """Facts, section 2, steps 4 to 6, for the two windows: they share columns 6 and 7."""
    made = []
    for classes, unseen in zip(logits.classes, logits.trusty, strict=True):
        p, w = enlarged(classes).sigmoid(), enlarged(unseen[None])[0].sigmoid()
        made.append(
            torch.stack(
                [
                    (p[k] - penalty * seen[k]) * ((1 - w) if seen[k] else w) if trusty else p[k] - penalty * seen[k]
                    for k in range(len(p))
                ]
            )
        )
    first, second = made
    shared = (first[:, :, 6:] + second[:, :, :2]) / 2
    return torch.cat([first[:, :, :6], shared, second[:, :, 2:]], 2)


@pytest.mark.parametrize("seen_penalty", [0.0, 0.1])
@pytest.mark.parametrize("trusty", [False, True])
def test_scores_are_those_of_the_published_code(windows, logits, seen_penalty, trusty):
    found = class_scores(windows, logits, ScoreRule(SEEN, seen_penalty, trusty))
    torch.testing.assert_close(found, by_hand(logits, penalty=seen_penalty, trusty=trusty), rtol=0, atol=1e-6)
    assert found.min() >= -seen_penalty


def test_which_classes_are_seen_matters(windows, logits):
    other = tuple(not seen for seen in SEEN)
    found = class_scores(windows, logits, ScoreRule(other, 0.1))
    torch.testing.assert_close(found, by_hand(logits, seen=other, penalty=0.1), rtol=0, atol=1e-6)


def test_the_logits_stay_as_they_are(windows, logits):
    before = logits.classes.clone(), logits.trusty.clone()
    class_scores(windows, logits, ScoreRule(SEEN, 0.1))
    assert torch.equal(logits.classes, before[0])
    assert torch.equal(logits.trusty, before[1])


def test_the_trusty_map_is_the_probability_of_something_unseen(windows, logits):
    masks = MaskLogits(logits.trusty[:, None], logits.trusty)
    expected = by_hand(masks, seen=(False,), trusty=False)
    torch.testing.assert_close(trusty_map(windows, logits, 1), expected, rtol=0, atol=1e-6)


def test_a_coarser_grid_says_the_same_of_the_same_places(windows, logits):
    smooth = MaskLogits(0.1 * logits.classes, 0.1 * logits.trusty)
    fine, coarse = (class_scores(windows, smooth, ScoreRule(SEEN), step) for step in (1, 2))
    assert coarse.shape == (CLASSES, 4, 7)
    torch.testing.assert_close(F.avg_pool2d(fine, 2), coarse, rtol=0, atol=0.01)


def test_memory_is_bounded(windows, logits, monkeypatch):
    """8 x 14 pixels of 11 classes: 1232 values."""
    for values, height in ((1232, 8), (1231, 4), (308, 4), (307, 2), (1, 1)):
        monkeypatch.setattr(module, "_MAX_SCORES", values)
        assert class_scores(windows, logits, ScoreRule(SEEN)).shape[1] == height
