"""The demo's order on photos that are resized for the models: crop and paint the resized photo, then enlarge scores."""

import math

import numpy as np
import pytest
import torch

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.background_words import background_words
from ovseg_demo.methods.ovseg.maskformer import DEMO_THRESHOLD, OVSegMaskFormer
from ovseg_demo.methods.ovseg.options import MaskFormerOptions
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.proposals.maskformer.predictor import MaskFormerOutput
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress

RESIZED = (7, 11)
PHOTO_SIZES = [(10, 18), (4, 6), (12, 8), (4, 20), (7, 11), (14, 22)]
"""Larger, smaller, and both at once; none has a pixel whose bilinear weight is 0 up to rounding, which may label it."""

WORDS = {"red": (9.0, 0, 0), "green": (0, 9.0, 0), "blue": (0, 0, 9.0)}
GREY = (2.0, 2.0, 2.0)
"""Of background words."""


class FullSizeOutput(MaskFormerOutput):
    """Its mask logits are given at the size of the resized photo."""

    def enlarged_mask_logits(self):
        yield from self.mask_logits.split(3)


class RandomMasks:
    """Resizes the photo by nearest neighbour, and finds ragged masks in parts of it; one of them nowhere."""

    def __init__(self, random):
        self.mask_logits = torch.full((6, *RESIZED), -9.0)
        for number, (top, left) in enumerate([(0, 0), (0, 2), (0, 0), (2, 4), (3, 1), (1, 6)]):
            inside = self.mask_logits[number, top : top + 4, left : left + 5]
            inside[:] = torch.tensor(random.normal(-0.3, 0.9, inside.shape))
        self.mask_logits[2] = -9

    def predict(self, pixels):
        rows, columns = (np.arange(new) * old // new for new, old in zip(RESIZED, pixels.shape[:2], strict=True))
        return FullSizeOutput(torch.eye(6, 3), self.mask_logits, pixels[np.ix_(rows, columns)])


class MeanColour:
    """A word is a direction in RGB; a region is the mean colour of its pixels, from 0 to 1."""

    name = "mean-colour"
    calibration = UNCALIBRATED

    def embed_texts(self, words):
        return torch.tensor([WORDS.get(word, GREY) for word in words])

    def embed_regions(self, pixels, proposals, report):
        return torch.tensor(np.array([pixels[mask].mean(0) / 255 for mask in proposals.masks()])).float()

    def logits(self, regions, texts):
        return regions @ texts.T


def expected_labels(logits, resized_photo, words, granularity, size):
    """The labels as the released demo makes them, mask by mask and pixel by pixel.

    A single word has the probability that it has beside a background word; they all have one embedding here.
    """
    drawn, rivals = len(words), background_words(words)[:1] if len(words) == 1 else ()
    height, width = RESIZED
    masks = [[[1 / (1 + math.exp(-float(value))) > DEMO_THRESHOLD for value in row] for row in mask] for mask in logits]
    masks = [mask for mask in masks if any(map(any, mask))]
    rows = []
    for mask in masks:
        inside = [resized_photo[y][x] / 255 for y in range(height) for x in range(width) if mask[y][x]]
        colour = sum(inside) / len(inside)
        directions = [WORDS.get(word, GREY) for word in (*words, *rivals)]
        powers = [math.exp(sum(c * w for c, w in zip(colour, direction, strict=True))) for direction in directions]
        rows.append([power / sum(powers) for power in powers[:drawn]])
    selected = set()
    for c in range(drawn):
        best = max(range(len(rows)), key=lambda q: rows[q][c])
        if granularity == 1:
            selected.add(best)
        else:
            selected |= {q for q in range(len(rows)) if rows[q][c] > granularity * rows[best][c]}
    sums = np.zeros((len(words), height, width))
    for q in selected:
        for y in range(height):
            for x in range(width):
                if masks[q][y][x]:
                    sums[:, y, x] += rows[q]
    labels = np.full(size, -1)
    for i in range(size[0]):
        for j in range(size[1]):
            y = max((i + 0.5) * height / size[0] - 0.5, 0)
            x = max((j + 0.5) * width / size[1] - 0.5, 0)
            found = np.zeros(len(words))
            for row in (int(y), int(y) + 1):
                for column in (int(x), int(x) + 1):
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    found += weight * sums[:, min(row, height - 1), min(column, width - 1)]
            if found.any():
                labels[i, j] = found.argmax()
    return labels


@pytest.mark.parametrize("size", PHOTO_SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("granularity", [1.0, 0.7])
@pytest.mark.parametrize("words", ["red, green, blue", "blue"])
def test_scores_are_painted_on_the_resized_photo_and_then_enlarged(random, size, granularity, words):
    pixels = random.integers(0, 200, (*size, 3), np.uint8)
    pixels[..., 2] = np.linspace(0, 255, size[1])  # bluer to the right
    photo = image.from_array(pixels)
    predictor = RandomMasks(random)
    names = vocabulary.parse(words)
    resized = predictor.predict(photo.pixels).pixels
    expected = expected_labels(predictor.mask_logits, resized, names.names, granularity, size)

    method = OVSegMaskFormer(predictor, MeanColour(), torch.ones(1, 3), "random", 0.4)
    stages = Stages(Cache(10**6), SerialWorker(), ignore_progress)
    found = method.segment(photo, names, MaskFormerOptions(granularity=granularity), stages)
    assert len(set(expected.ravel().tolist())) > 1
    assert found.labels.tolist() == expected.tolist()
    assert np.array_equal(found.scores > 0, expected >= 0)
