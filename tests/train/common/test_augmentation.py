import cv2
import numpy as np
import pytest
import torch

from tests.helpers.mini_data import shrunk
from train.common import augmentation
from train.common.augmentation import AugmentationSettings, RelativeAugmentation

VIEWS = AugmentationSettings(side=64, shortest=(48, 96), longest=128)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadrants(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo that tells in its red and green where each pixel lies, and the same as labels, 0 to 3."""
    rows, columns = np.arange(height) >= height // 2, np.arange(width) >= width // 2
    labels = (2 * rows[:, None] + columns).astype(np.int32)
    photo = np.stack([200 * (labels > 1), 200 * (labels % 2), np.full(labels.shape, 50)], 2).astype(np.uint8)
    return photo, labels


@pytest.fixture
def _plain(monkeypatch):
    """Without changes of colour."""
    monkeypatch.setattr(augmentation, "distort_colours", lambda photo, generator: photo)


@pytest.mark.usefixtures("_plain")
def test_photo_and_labels_move_together():
    photo, labels = quadrants(100, 140)
    flipped = set()
    for seed in range(12):
        pixels, found = augmentation.augment(photo, labels, VIEWS, seeded(seed))
        assert (pixels.shape, pixels.dtype, found.shape, found.dtype) == (
            (3, 64, 64),
            torch.uint8,
            (64, 64),
            torch.int64,
        )
        inside = found >= 0
        told = 2 * (pixels[0] > 100).long() + (pixels[1] > 100)
        assert (told == found)[inside].float().mean() > 0.97, "all but the rims, which are blended"
        assert (pixels[:, ~inside] == 128).all()
        top = found[0]
        known = top[top >= 0]
        if known.unique().numel() > 1:
            flipped.add(bool(known[0] > known[-1]))
    assert flipped == {True, False}


@pytest.mark.usefixtures("_plain")
def test_small_photos_are_filled_up_on_the_right_and_below():
    photo, labels = quadrants(30, 60)
    pixels, found = augmentation.augment(photo, labels, AugmentationSettings(96, (30,), 64), seeded(0))
    assert (found[:30, :60] >= 0).all()
    assert (found[30:] == -1).all()
    assert (found[:, 60:] == -1).all()
    assert pixels[:, 40, 70].tolist() == [128, 128, 128]


def test_every_scale_is_drawn(monkeypatch):
    wide = AugmentationSettings(32, tuple(range(32, 129, 8)), 2560)
    drawn = []
    monkeypatch.setattr(augmentation, "scaled_size", lambda *given: drawn.append(given) or (32, 32))
    generator = seeded(0)
    for _ in range(200):
        augmentation.augment(*quadrants(40, 50), wide, generator)
    assert set(drawn) == {((40, 50), shortest, 2560) for shortest in wide.shortest}


def test_crops_reach_every_part_of_a_photo():
    photo, labels = quadrants(128, 128)
    seen = {
        int(label)
        for seed in range(20)
        for label in augmentation.augment(photo, labels, VIEWS, seeded(seed))[1].unique()
    }
    assert seen >= {0, 1, 2, 3}


@pytest.mark.usefixtures("_plain")
def test_views_are_filled_up_with_the_colour_that_is_asked_for():
    photo, labels = quadrants(30, 60)
    pixels, found = augmentation.augment(
        photo, labels, AugmentationSettings(96, (30,), 64, fill=(124, 116, 104)), seeded(0)
    )
    assert pixels[:, found < 0].unique(dim=1).tolist() == [[124], [116], [104]]


def test_no_class_has_more_than_its_share_where_another_cut_can_be_had():
    labels = np.zeros((64, 128), np.int32)
    labels[:, :16], labels[:, 64:] = 1, -2  # the second class is in one cut of four; the right half has none
    photo = np.zeros((64, 128, 3), np.uint8)

    def shares(largest: float) -> list[float]:
        drawn = [
            augmentation.augment(photo, labels, AugmentationSettings(64, (64,), 128, largest), seeded(seed))[1]
            for seed in range(40)
        ]
        return [(each == 0).sum().item() / max(1, (each >= 0).sum().item()) for each in drawn]

    free, bound = shares(1.0), shares(0.95)
    assert sum(0 < share < 0.95 for share in free) < 20
    assert sum(0 < share < 0.95 for share in bound) > 30


def test_a_photo_of_one_class_is_cut_all_the_same():
    photo, labels = np.zeros((80, 80, 3), np.uint8), np.full((80, 80), 3, np.int32)
    _, found = augmentation.augment(photo, labels, AugmentationSettings(64, (80,), 128, largest_share=0.75), seeded(0))
    assert (found == 3).all()


def test_a_view_is_a_function_of_its_generator():
    photo, labels = np.asarray(shrunk("pizza")), np.zeros((72, 96), np.int32)
    one, again, other = (augmentation.augment(photo, labels, VIEWS, seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def always(monkeypatch, *coins: bool, uniform=None, integer=None) -> None:
    """Coins fall as told; amounts are given."""
    falls = iter(coins)
    monkeypatch.setattr(augmentation, "_draw_bool", lambda generator: next(falls))
    monkeypatch.setattr(augmentation, "_draw_uniform", lambda low, high, generator: uniform)
    monkeypatch.setattr(augmentation, "_draw_integer", lambda low, high, generator: integer)


def hsv(photo: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(photo, cv2.COLOR_RGB2HSV).astype(int)


def test_nothing_changes_when_no_coin_falls(monkeypatch):
    photo = np.asarray(shrunk("pizza"))
    always(monkeypatch, False, False, False, False, False)
    assert np.array_equal(augmentation.distort_colours(photo, seeded(0)), photo)


def test_brightness_is_a_sum_and_contrast_a_factor(monkeypatch):
    photo = np.asarray(shrunk("pizza")).astype(int)
    always(monkeypatch, True, False, False, False, False, uniform=20.0)
    assert np.array_equal(augmentation.distort_colours(photo.astype(np.uint8), seeded(0)), (photo + 20).clip(0, 255))
    for order in ((False, True, True, False, False), (False, False, False, False, True)):
        always(monkeypatch, *order, uniform=1.5)
        found = augmentation.distort_colours(photo.astype(np.uint8), seeded(0))
        assert np.array_equal(found, (photo * 1.5).clip(0, 255).astype(int))


def test_the_hue_turns_and_the_saturation_is_a_factor(monkeypatch):
    photo = np.full((2, 2, 3), (180, 100, 60), np.uint8)
    always(monkeypatch, False, False, False, True, False, integer=18)
    assert (hsv(augmentation.distort_colours(photo, seeded(0)))[..., 0] - hsv(photo)[..., 0] == 18).all()
    always(monkeypatch, False, False, False, True, False, integer=-18)
    assert (hsv(augmentation.distort_colours(photo, seeded(0)))[..., 0] - hsv(photo)[..., 0] == 162).all(), (
        "it is a circle"
    )
    always(monkeypatch, False, False, True, False, False, uniform=0.5)
    found = hsv(augmentation.distort_colours(photo, seeded(0)))[..., 1]
    assert abs(found / hsv(photo)[..., 1] - 0.5).max() < 0.02


def test_contrast_is_changed_once_at_most(monkeypatch):
    drawn = []
    change_contrast = augmentation._change_contrast
    monkeypatch.setattr(
        augmentation, "_change_contrast", lambda *arguments: drawn.append(0) or change_contrast(*arguments)
    )
    for seed in range(10):
        augmentation.distort_colours(np.asarray(shrunk("pizza")), seeded(seed))
    assert len(drawn) == 10


@pytest.mark.usefixtures("_plain")
def test_factors_scale_photos_in_proportion_to_their_own_size():
    settings = RelativeAugmentation(300, (0.5, 2.0))
    shares = []
    for seed in range(40):
        _, found = augmentation.augment(*quadrants(60, 100), settings, seeded(seed))
        rows, columns = (found >= 0).any(1).sum().item(), (found >= 0).any(0).sum().item()
        assert abs(rows / 60 - columns / 100) < 0.02
        shares.append(columns / 100)
    assert (0.5 <= min(shares) < 0.6, 1.8 < max(shares) <= 2.0) == (True, True)


def test_a_whole_view_is_the_photo_filled_up():
    photo, labels = quadrants(50, 100)
    pixels, found = augmentation.whole_view(photo, labels, RelativeAugmentation(64, (1, 1), fill=(1, 2, 3)))
    assert (found[:32] >= 0).all()
    assert (found[32:] == -1).all()
    assert pixels[:, 40, 5].tolist() == [1, 2, 3]
    assert [found[0, 0], found[0, -1], found[31, 0], found[31, -1]] == [0, 1, 2, 3]
