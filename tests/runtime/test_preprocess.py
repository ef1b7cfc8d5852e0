"""The published normalisations and resizing rules, against the libraries that define them."""

import numpy as np
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from ovseg_demo.runtime import preprocess
from ovseg_demo.runtime.preprocess import scaled_size


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "sides", "wanted"),
    [
        ((461, 640), (640, 2560), (640, 889)),
        ((640, 461), (512, 2048), (711, 512)),
        ((300, 300), (512, 2048), (512, 512)),
        ((200, 1000), (512, 2048), (410, 2048)),
        # Where rounding falls depends on the order of the multiplications; these are Detectron2's.
        ((3960, 1870), (60, 90), (90, 42)),
        ((1703, 2620), (60, 90), (59, 90)),
        ((1802, 3816), (60, 90), (42, 90)),
        ((4212, 2691), (60, 90), (90, 57)),
        ((1, 5000), (512, 2048), (1, 2048)),
    ],
)
def test_sizes_are_those_of_the_reference(size, sides, wanted):
    assert scaled_size(size, *sides) == wanted


@pytest.mark.parametrize(
    ("mean", "std", "published"),
    [
        (preprocess.CLIP_MEAN, preprocess.CLIP_STD, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)),
        (preprocess.IMAGENET_MEAN, preprocess.IMAGENET_STD, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    ],
    ids=["CLIP", "ImageNet"],
)
def test_normalisations_are_the_published_ones(mean, std, published):
    image = noise(3, 4)
    expected = vision.normalize(vision.to_tensor(image), *published)
    found = preprocess.normalise_image(image, mean, std)
    assert found.shape == (1, 3, 3, 4)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(preprocess.normalise(torch.from_numpy(image).permute(2, 0, 1), mean, std), found[0])


def test_smoothed_resizing_weights_every_pixel_that_it_leaves_out():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::4] = 200  # a quarter of the columns
    assert np.abs(preprocess.resize_smoothed(stripes, (8, 8))[:, 1:-1].astype(int) - 50).max() <= 1


@pytest.mark.parametrize("size", [(5, 9), (31, 40)])
def test_unsmoothed_resizing_interpolates_between_neighbours(size):
    image = noise(17, 23)
    expected = vision.resize(
        torch.from_numpy(image).permute(2, 0, 1).float(), list(size), InterpolationMode.BILINEAR, antialias=False
    )
    found = torch.from_numpy(preprocess.resize_unsmoothed(image, size)).permute(2, 0, 1)
    assert (found - expected).abs().max() <= 1  # OpenCV computes bytes in fixed point


def test_a_square_is_stretched_without_smoothing():
    pixels = torch.randn(2, 3, 6, 20)
    expected = vision.resize(pixels, [9, 9], InterpolationMode.BILINEAR, antialias=False)
    torch.testing.assert_close(preprocess.resize_to_square(pixels, 9), expected)
