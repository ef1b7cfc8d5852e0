"""From photos and words to cost maps, with a fake CLIP."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.sed.checkpoint import ReleasedModel
from ovseg_demo.methods.sed.cost_maps import ClipCostMaps, preprocess_keeping_aspect, preprocess_square
from ovseg_demo.methods.sed.decoder import DecoderSizes
from ovseg_demo.methods.sed.loading import ARCHITECTURES, architecture_of
from ovseg_demo.models.clip.convnext import HierarchicalFeatures

MEAN = torch.tensor([122.7709383, 116.7460125, 104.09373615])
STD = torch.tensor([68.5005327, 66.6321579, 70.323163])
"""As SED's configuration gives them."""

VECTORS = {
    "cat": [[1.0, 0], [0, 1]],
    "kitten": [[0.0, 1], [0, 1]],
    "sky": [[0.6, 0.8], [-1, 0]],
    "others": [[1.0, 0]] * 2,
}
"""Of two prompts."""


class FakeClip:
    """Gives fixed vectors to words, and the same features to every photo."""

    name = "fake"

    def embed_texts(self, words):
        return torch.tensor([VECTORS[word] for word in words])

    def embed_images(self, pixels):
        self.shape = pixels.shape
        dense = torch.tensor([[[2.0, 0, 3]], [[0, 1, 4]]])[None]
        return HierarchicalFeatures(
            dense, tuple(torch.full((1, c, 2 * s, 6 * s), float(c)) for c, s in ((3, 1), (2, 2), (1, 4)))
        )


@pytest.fixture
def costs() -> ClipCostMaps:
    return ClipCostMaps(FakeClip())


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "between"), [((48, 64), (640, 853)), ((64, 16), (2560, 640)), ((8, 80), (256, 2560))])
def test_a_photo_becomes_a_square_as_published(size, between):
    """Detectron2's ResizeShortestEdge(640, 2560) in bytes, normalised, and then a square."""
    photo = noise(*size)
    resized = vision.resize(Image.fromarray(photo), list(between), InterpolationMode.BILINEAR)
    x = (torch.from_numpy(np.array(resized)).float() - MEAN) / STD
    expected = vision.resize(x.movedim(-1, 0), [768, 768], InterpolationMode.BILINEAR, antialias=False)
    assert torch.allclose(preprocess_square(photo)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((500, 500), (768, 768)),
        ((480, 640), (672, 896)),
        ((640, 480), (896, 672)),
        ((50, 1000), (192, 3072)),  # bounded at 1 : 16
        ((1024, 1), (3072, 192)),
        ((1, 1), (768, 768)),
    ],
)
def test_a_photo_may_keep_its_aspect_ratio(size, wanted):
    found = preprocess_keeping_aspect(noise(*size))
    assert found.shape == (1, 3, *wanted)
    assert abs(wanted[0] * wanted[1] / 768**2 - 1) < 0.1


def test_colours_are_normalised_in_both_ways():
    grey = np.full((30, 40, 3), 128, np.uint8)
    expected = ((128 - MEAN) / STD).view(1, 3, 1, 1)
    for pixels in (preprocess_square(grey), preprocess_keeping_aspect(grey)):
        assert torch.allclose(pixels, expected.expand_as(pixels), atol=1e-5)


def test_the_option_decides(costs):
    photo = noise(20, 80)
    costs.embed_image(photo, keep_aspect=False)
    assert costs._clip.shape == (1, 3, 768, 768)
    costs.embed_image(photo, keep_aspect=True)
    assert costs._clip.shape == (1, 3, 384, 1536)


def test_synonyms_are_averaged_for_each_prompt_and_stay_unit_vectors(costs):
    rows = costs.embed_texts(["cat", "kitten", "sky"])
    found = costs.class_embeddings(rows, torch.tensor([0, 0, 1]))
    half = 0.5**0.5
    assert torch.allclose(found, torch.tensor([[[half, half], [0, 1]], [[0.6, 0.8], [-1, 0]]]))


def test_costs_are_cosines_of_every_position_and_prompt(costs):
    photo = costs.embed_image(noise(4, 4), keep_aspect=False)
    found = costs.cost_map(photo, costs.embed_texts(["cat", "sky"]))
    assert found.shape == (2, 2, 1, 3)
    expected = [[[[1, 0, 0.6]], [[0, 1, 0.8]]], [[[0.6, 0.8, 1]], [[-1, 0, -0.6]]]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32), atol=1e-6)
    assert [level.shape for level in costs.skips(photo)] == [(3, 2, 6), (2, 4, 12), (1, 8, 24)]


def test_a_file_says_which_clip_it_has():
    for architecture, sizes in ARCHITECTURES.items():
        weight = torch.empty(sizes.guides[0], sizes.skips[0], 3, 3, device="meta")
        assert architecture_of(ReleasedModel({}, {"skips.0.weight": weight}), "x") == architecture
    assert ARCHITECTURES["convnext_base_w_320"] == DecoderSizes()


@pytest.mark.parametrize(
    "state", [{}, {"skips.0.weight": torch.zeros(3)}, {"skips.0.weight": torch.zeros(32, 99, 3, 3)}]
)
def test_a_decoder_of_another_clip_is_refused(state):
    with pytest.raises(CheckpointError, match=r"odd\.pth holds no decoder of SED for convnext_base_w_320 or"):
        architecture_of(ReleasedModel({}, state), "odd.pth")
