import numpy as np
import pytest
import torch

from eval.datasets.base import IGNORE
from ovseg_demo.models.mini.towers import MEAN, STD
from ovseg_demo.models.region_crops import masked_crops
from ovseg_demo.proposals.base import MaskProposals
from train.mini import views
from train.mini.views import REGION_VIEWS, RegionView


@pytest.fixture
def image(random) -> np.ndarray:
    return random.integers(0, 256, (60, 80, 3), np.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A photo whose left is red and whose right is blue, and labels 0 and 1 that say so."""
    labels = np.broadcast_to(np.arange(size[1]) * 2 // size[1], size).astype(np.int32)
    return np.array([[255, 0, 0], [0, 0, 255]], np.uint8)[labels], labels


def test_the_first_view_is_what_the_demo_reads(image, random):
    mask = np.zeros((60, 80), bool)
    mask[10:40, 25:70] = random.random((30, 45)) < 0.5
    proposals = MaskProposals.from_masks(mask[None], np.ones(1))
    [demo] = masked_crops(
        image, proposals, size=views.CROP_SIDE, mean=(MEAN,) * 3, std=(STD,) * 3, batch_size=1, antialias=True
    )
    torch.testing.assert_close(views.region_view(image, mask, REGION_VIEWS[0]), demo)


def test_a_view_may_be_flipped_widened_and_show_its_surroundings(image):
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:70] = True
    plain = views.region_view(image, mask, RegionView(0, 0, False))
    torch.testing.assert_close(views.region_view(image, mask, RegionView(0, 0, True)), plain.flip(3), rtol=0, atol=0)
    assert (
        views.region_view(image, mask, RegionView(0, 0.3, True)) - plain.flip(3)
    ).abs().max() == 0  # the box is all mask
    dark = views.region_view(np.full_like(image, 255), mask, RegionView(0.5, 0.25, False))[0, 0]
    # Half of the box's 20 rows and 40 columns on each side, the right one cut off by the photo.
    bright = dark > 0.9
    assert dark[0, 0] == pytest.approx(0.25, abs=0.01)
    assert bright.any(1).float().mean() == pytest.approx(20 / 40, abs=0.02)
    assert bright.any(0).float().mean() == pytest.approx(40 / 70, abs=0.02)
    assert bright.any(0).nonzero().min() == pytest.approx(224 * 20 / 70, abs=3)


@pytest.mark.parametrize("place", [(0, 0), (59, 79)])
def test_a_region_of_one_pixel_has_every_view(image, place):
    mask = np.zeros((60, 80), bool)
    mask[place] = True
    for view in REGION_VIEWS:
        crop = views.region_view(image, mask, view)
        assert crop.shape == (1, 3, views.CROP_SIDE, views.CROP_SIDE)
        assert crop.isfinite().all()


def test_a_whole_photo_is_seen_whole_and_parts_where_the_generator_says(image):
    torch.testing.assert_close(
        views.photo_view(image, 1.0, False, seeded()),
        views.region_view(image, np.ones((60, 80), bool), REGION_VIEWS[0]),
    )
    parts = [views.photo_view(image, 0.8, True, seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
    assert views.photo_view(image[:1, :1], 0.8, False, seeded()).shape == (1, 3, views.CROP_SIDE, views.CROP_SIDE)


@pytest.mark.parametrize("size", [(60, 80), (300, 40), (3, 400), (1, 1)])
def test_labels_of_a_window_lie_on_their_pixels(size):
    photo, labels = coloured(size)
    flips = set()
    for seed in range(8):
        pixels, found = views.random_window(photo, labels, 64, (50, 120), seeded(seed))
        assert pixels.shape == (1, 3, 64, 64)
        assert found.shape == (64, 64)
        red, _, blue = pixels[0]
        outside = torch.from_numpy(found == IGNORE)
        assert (pixels[0, :, outside] == 0).all()
        # The column in the middle may be of both colours; the narrowest photo has seven.
        assert ((red > blue).numpy() == (found == 0))[found != IGNORE].mean() > 0.8
        flips.add(bool((found[0] == IGNORE).any() and found[0, 0] == IGNORE))
    if max(size) > 1 and size[1] < size[0]:
        assert flips == {True, False}  # padding is at the right, or with the flip at the left


def test_windows_come_at_every_scale_and_repeat(image):
    photo, labels = np.full_like(image, 255), np.zeros((60, 80), np.int32)
    widths = {
        int((views.random_window(photo, labels, 64, (40, 60), seeded(s))[1] == 0).any(0).sum()) for s in range(100)
    }
    assert (min(widths), max(widths)) == (40, 60)
    first, again = (views.random_window(image, labels, 64, (50, 120), seeded(9)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
