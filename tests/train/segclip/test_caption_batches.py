"""Batches are random parts of photos, their captions and the superpixels of the same parts."""

import numpy as np
import pytest
import torch
from open_clip import tokenize

from train.common.run_folder import TrainingError
from train.common.sampling import StepGenerator
from train.segclip.batches import CaptionBatches, shrink

COLOURS = np.random.default_rng(0).permutation(256)[:24].astype(np.uint8).reshape(4, 6)


class Photos(list):
    name = "photos"


def mosaic(photo: np.ndarray) -> np.ndarray:
    """In place of superpixels: fields of one colour, whose label is their red."""
    return photo[..., 0].astype(np.uint16)


def batches(count: int = 5, size: int = 2, seed: int = 0) -> CaptionBatches:
    photo = COLOURS.repeat(32, 0).repeat(32, 1)[..., None].repeat(3, 2)
    sets = [Photos([(photo, f"caption {n}") for n in range(count)]), Photos([(photo, "of another set")])]
    return CaptionBatches(sets, mosaic, size, 64, 8, seed)


def test_superpixels_are_those_of_the_part_that_is_seen():
    batch = batches()(StepGenerator(0, 0, 0, 1))
    assert (batch["images"].shape, batch["images"].dtype) == ((2, 3, 64, 64), torch.uint8)
    assert (batch["superpixels"].shape, batch["superpixels"].dtype) == ((2, 64), torch.int64)
    patches = batch["images"][:, 0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).flatten(1, 2).long()
    flat = patches.amax(2) - patches.amin(2) <= 2
    assert flat.sum() > 20
    assert (patches.double().mean(2) - batch["superpixels"])[flat].abs().max() <= 2
    assert not torch.equal(batch["superpixels"][0], batch["superpixels"][1]), "each photo has a part of its own"


def test_an_epoch_has_every_caption_once_over_both_processes():
    made, known = batches(), {tuple(tokenize(f"caption {n}", 32)[0].tolist()) for n in range(5)}
    known.add(tuple(tokenize("of another set", 32)[0].tolist()))
    assert made.steps(1) == 3
    assert made.steps(2) == 1
    for epoch in range(2):
        steps = range(3 * epoch, 3 * epoch + 3)
        seen = [tuple(row.tolist()) for step in steps for row in made(StepGenerator(0, step, 0, 1))["tokens"]]
        assert set(seen) == known
    halves = [made(StepGenerator(0, 0, process, 2))["tokens"].tolist() for process in (0, 1)]
    assert not any(row in halves[1] for row in halves[0])


def test_a_batch_follows_from_seed_and_step():
    one, same, other = (batches(seed=seed)(StepGenerator(seed, 1, 0, 1)) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["images"], other["images"])


def test_too_few_captions_are_told():
    with pytest.raises(TrainingError, match=r"^There are 6 captions to train on, but a step takes 8; choose a smaller"):
        batches(size=4).steps(2)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((448, 600), (224, 300)),
        ((601, 300), (448, 224)),
        ((300, 300), (224, 224)),
        ((224, 900), None),
        ((90, 60), None),
    ],
)
def test_photos_are_shrunk_as_the_released_code_stores_them(size, expected):
    photo = np.zeros((*size, 3), np.uint8)
    found = shrink(photo)
    assert found.shape[:2] == (expected or size)
    assert (found is photo) is (expected is None)
