"""OVSeg with MaskFormer: against the released code's numbers, and over stand-ins whose answers are known."""

import json

import numpy as np
import pytest
import torch

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.ovseg import maskformer
from ovseg_demo.methods.ovseg.maskformer import (
    MaskFormerProposals,
    OVSegMaskFormer,
    binary_masks,
    ensemble_scores,
    sum_soft_masks,
)
from ovseg_demo.methods.ovseg.options import MaskFormerOptions
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.proposals.maskformer.model import BACKBONES
from ovseg_demo.proposals.maskformer.predictor import MaskFormerOutput
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from tests.helpers.paths import FIXTURES

REFERENCE = json.loads((FIXTURES / "ovseg_inference.json").read_text())
MASKS, CLIP, CLASSES = (torch.tensor(REFERENCE[name]) for name in ("masks", "clip", "maskformer"))
NAMES = "red, green, blue"


class Large(MaskFormerOutput):
    """Its masks are given at full size."""

    def enlarged_mask_logits(self):
        yield from self.mask_logits.split(2)


class Paper:
    """Reads what it was given."""

    def __init__(self, class_embeddings, mask_logits):
        self.class_embeddings, self.mask_logits, self.calls = class_embeddings, mask_logits, 0

    def predict(self, pixels):
        self.calls += 1
        return Large(self.class_embeddings, self.mask_logits, pixels)


class Oracle:
    """A CLIP with words as unit axes, the fourth for all others; a region is known by its pixel count."""

    name = "oracle"
    calibration = UNCALIBRATED

    def __init__(self, regions):
        self.regions = regions

    def embed_texts(self, words):
        return torch.eye(4)[[["red", "green", "blue"].index(word) if word in NAMES else 3 for word in words]]

    def embed_regions(self, pixels, proposals, report):
        return torch.tensor([self.regions[int(mask.sum())] for mask in proposals.masks()]).reshape(-1, 4)

    def logits(self, regions, texts):
        return regions @ texts.T


def segment(method, words, size=(6, 8), **options):
    photo = image.from_array(np.zeros((*size, 3), np.uint8))
    return method.segment(
        photo,
        vocabulary.parse(words),
        MaskFormerOptions(**options),
        Stages(Cache(10**6), SerialWorker(), ignore_progress),
    )


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"{case['threshold']}-{case['ensemble']}")
def test_the_evaluation_equals_the_released_code(case):
    output = Large(CLASSES, MASKS, np.zeros((6, 8, 3), np.uint8))
    _, valid = binary_masks(output, case["threshold"])
    by_clip = CLIP[valid][:, :-1].softmax(-1)
    scores = ensemble_scores(CLASSES.softmax(-1)[:, :-1], by_clip, valid, case["ensemble"])
    assert 0 < valid.sum() < len(valid)
    assert torch.allclose(sum_soft_masks(scores, output), torch.tensor(case["scores"]), atol=1e-5)


def test_the_demo_equals_the_released_code():
    threshold = REFERENCE["demo"]["threshold"]
    sizes = (MASKS.sigmoid() > threshold).flatten(1).sum(1).tolist()
    assert len(set(sizes)) == len(sizes)
    clip = Oracle(dict(zip(sizes, CLIP.tolist(), strict=True)))
    method = OVSegMaskFormer(Paper(CLASSES, MASKS), clip, torch.ones(1, 4), "paper", 0.4)
    result = segment(method, NAMES, granularity=1.0)
    assert result.labels.tolist() == REFERENCE["demo"]["labels"]


@pytest.mark.parametrize("case", REFERENCE["demo"]["resized"], ids=lambda case: "x".join(map(str, case["size"])))
def test_the_demo_equals_the_released_code_on_photos_that_are_resized(case):
    sizes = (MASKS.sigmoid() > REFERENCE["demo"]["threshold"]).flatten(1).sum(1).tolist()
    clip = Oracle(dict(zip(sizes, CLIP.tolist(), strict=True)))
    method = OVSegMaskFormer(Paper(CLASSES, MASKS), clip, torch.ones(1, 4), "paper", 0.4)
    assert segment(method, NAMES, case["size"], granularity=1.0).labels.tolist() == case["labels"]


def halves() -> torch.Tensor:
    """Two masks, the left and the right half of 4 x 6 pixels, and one that is nowhere."""
    masks = torch.full((3, 4, 6), -9.0)
    masks[0, :, :2] = masks[1, :, 2:] = 9
    return masks


def test_maskformer_and_clip_share_the_decision():
    queries = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]])
    clip = Oracle({8: [0, 0, 20.0, 0], 16: [0, 0, 20.0, 0]})  # CLIP sees blue everywhere
    method = OVSegMaskFormer(Paper(queries, halves()), clip, torch.tensor([[0.0, 0, 0, 1]]), "paper", 0.4)
    by_maskformer = segment(method, NAMES, (4, 6), ensemble=0.1).labels
    assert by_maskformer[0].tolist() == [0, 0, 1, 1, 1, 1]
    assert (segment(method, NAMES, (4, 6), ensemble=0.99).labels == 2).all()
    # MaskFormer alone names the same, whatever the word's place in the vocabulary.
    assert segment(method, "blue, green, red", (4, 6), ensemble=0.1).labels[0].tolist() == [2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("ensemble", [None, 0.0, 0.7])
def test_what_is_known_is_what_clip_says_of_the_masks(ensemble):
    """The left half is red, the right half rather something that was not asked for."""
    clip = Oracle({8: [9.0, 0, 0, 0], 16: [0, 4.0, 0, 4.0]})
    method = OVSegMaskFormer(Paper(torch.eye(4)[:3], halves()), clip, torch.tensor([[0.0, 0, 0, 1]]), "paper", 0.4)
    found = segment(method, NAMES, (4, 6), ensemble=ensemble, unlabelled=0.35)
    left, right = np.exp(-9), 1  # the odds of the background words, whose logits are all 0 and all 4
    assert found.labels[0].tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(found.known[:, [0, -1]], [[1 / (1 + left), 1 / (1 + right)]] * 4, atol=2e-3)
    blue = 1  # its logit is 0 in both halves, as are those of the background words in the left one
    np.testing.assert_allclose(found.presence, 1 / (1 + np.array([left, right, blue])), atol=1e-4)


def test_where_all_pixels_are_labelled_the_evaluation_does_not_ask_what_is_known():
    method = OVSegMaskFormer(
        Paper(torch.eye(4)[:3], halves()), Oracle({8: [9.0, 0, 0, 0], 16: [0.0] * 4}), torch.ones(1, 4), "p", 0.4
    )
    assert segment(method, NAMES, (4, 6), ensemble=0.5, unlabelled=0).known is None


def test_queries_that_are_no_object_say_nothing():
    queries = torch.tensor([[0.6, 0, 0, 0.8], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
    masks = halves()
    masks[1] = 0  # half a mask everywhere
    method = OVSegMaskFormer(
        Paper(queries, masks), Oracle({8: [0.0] * 4, 24: [0.0] * 4}), torch.tensor([[0.0, 0, 0, 3]]), "paper", 0.4
    )
    assert (segment(method, NAMES, (4, 6), ensemble=0.5).labels == 1).all()


@pytest.mark.parametrize("masks", [0, 1])
@pytest.mark.parametrize("ensemble", [None, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("words", [NAMES, "red"])
def test_no_mask_or_one_is_no_failure(masks, ensemble, words):
    """The released code crashes on both."""
    logits = halves()
    logits[masks:] = -9
    method = OVSegMaskFormer(
        Paper(torch.eye(4)[:3], logits), Oracle({8: [9.0, 0, 0, 0]}), torch.ones(1, 4), "paper", 0.4
    )
    result = segment(method, words, (4, 6), ensemble=ensemble)
    assert result.names == vocabulary.parse(words).names
    assert np.isfinite(result.scores).all()
    assert ((result.known >= 0) & (result.known <= 1)).all()
    assert (result.presence > 0).tolist() == [bool(masks)] * len(result.names)
    assert result.scores.max() <= 1
    if masks and ensemble is None:
        assert result.labels[0].tolist() == [0, 0, -1, -1, -1, -1]
    if not masks and ensemble in (None, 0.0):
        assert (result.labels == -1).all()


def test_masks_of_the_resized_photo_fit_the_photo():
    found = MaskFormerProposals(Paper(torch.eye(4)[:3], halves()), "m", 0.35).propose(
        np.zeros((8, 3, 3), np.uint8), lambda _: None
    )
    assert found.size == (8, 3)
    assert found.masks()[:, 0].tolist() == [[True, False, False], [False, True, True]]
    assert np.allclose(found.scores, 1, atol=1e-3)


def test_a_photo_is_read_once_for_both_ways():
    paper = Paper(torch.eye(4)[:3], halves())
    method = OVSegMaskFormer(paper, Oracle({8: [9.0, 0, 0, 0], 16: [0, 9.0, 0, 0]}), torch.ones(1, 4), "p", 0.4)
    stages = Stages(Cache(10**6), SerialWorker(), ignore_progress)
    photo = image.from_array(np.zeros((4, 6, 3), np.uint8))
    for options in (MaskFormerOptions(), MaskFormerOptions(granularity=0.2), MaskFormerOptions(granularity=None)):
        method.segment(photo, vocabulary.parse(NAMES), options, stages)
    for weight in (0.2, 0.9):
        method.segment(photo, vocabulary.parse(NAMES), MaskFormerOptions(ensemble=weight), stages)
    assert paper.calls == 1


def test_a_mask_that_vanishes_in_a_smaller_photo_is_left_out():
    masks = halves()
    masks[2, 0, 1] = 9  # one pixel
    found = MaskFormerProposals(Paper(torch.eye(4)[:3], masks), "m", 0.35).propose(
        np.zeros((2, 3, 3), np.uint8), lambda _: None
    )
    assert len(found) == 2


def test_a_photo_is_read_with_more_pixels_than_the_page_shows():
    class Sized(Paper):
        def predict(self, pixels):
            self.seen = pixels.shape
            return super().predict(pixels)

    predictor = Sized(torch.eye(4)[:3], halves())
    method = OVSegMaskFormer(predictor, Oracle({8: [9.0, 0, 0, 0], 16: [0, 9.0, 0, 0]}), torch.ones(1, 4), "p", 0.4)
    assert segment(method, NAMES, (30, 2000)).labels.shape == (15, 1024)
    assert predictor.seen == (30, 2000, 3)


def test_every_backbone_that_is_published_has_its_settings():
    assert set(maskformer.PUBLISHED_SETTINGS) == set(BACKBONES)
