"""SegCLIP on the mini model: what the grouping tower says of a photo, and the photo as one window."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.segclip.method import SegCLIP
from ovseg_demo.methods.segclip.mini import MiniRegionEncoder, load_encoder
from ovseg_demo.methods.segclip.mini_model import MiniGroupingTower, anchor_patches
from ovseg_demo.methods.segclip.options import SegCLIPMiniOptions
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.result import RegionMap
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from tests.helpers.paths import GALLERY

ANCHORS, TEXTS, REGIONS = 12, 8, 4


def build(anchored: bool = True) -> MiniGroupingTower:
    torch.manual_seed(0)
    tower = MiniGroupingTower(anchored, 64, REGIONS, TEXTS, ANCHORS).eval()
    tower.anchor_projection.normal_()
    torch.nn.init.normal_(tower.group.centres)
    return tower


def maps(height: int = 2, width: int = 3, photos: int = 2) -> list[torch.Tensor]:
    sizes = ((120, 2), (1280, 1), (ANCHORS, 1))
    return [torch.randn(photos, channels, times * height, times * width) for channels, times in sizes]


def test_an_untrained_tower_says_of_a_region_what_the_anchors_say_of_its_patches():
    tower, given = build(), maps()
    found = tower(*given)
    assert found.grid == (4, 6)
    regression = torch.einsum("bahw,ad->bdhw", given[2], tower.anchor_projection)
    of_patches = anchor_patches(regression)
    torch.testing.assert_close(of_patches.norm(dim=2), torch.ones(2, 24))
    members = found.grouping.soft.argmax(1)
    for photo in range(2):
        assert len(members[photo].unique()) > 1
        for region in members[photo].unique():
            mean = of_patches[photo, members[photo] == region].mean(0)
            torch.testing.assert_close(found.regions[photo, region], F.normalize(mean, dim=0))
    occupied = F.one_hot(members, REGIONS).amax(1)[..., None]
    torch.testing.assert_close(found.images, F.normalize((found.regions * occupied).sum(1), dim=1))


@pytest.mark.parametrize(("anchored", "changed"), [(True, 0), (True, 1), (True, 2), (False, 0), (False, 1)])
def test_a_trained_one_heeds_every_map_it_is_built_for(anchored, changed):
    tower, given = build(anchored), maps()
    torch.nn.init.normal_(tower.projection.weight)
    before = tower(*given)
    given[changed] = given[changed] + torch.randn_like(given[changed])
    after = tower(*given)
    assert (after.images - before.images).abs().max() > 1e-3
    for found in (before, after):
        torch.testing.assert_close(found.images.norm(dim=1), torch.ones(2))


def test_the_mean_of_training_is_taken_off_regions_and_images():
    tower, given = build(), maps()
    before = tower(*given)
    tower.mean.fill_(0.25)
    after = tower(*given)
    torch.testing.assert_close(before.regions - after.regions, torch.full_like(before.regions, 0.25))
    torch.testing.assert_close(before.images - after.images, torch.full_like(before.images, 0.25))


def test_without_anchors_their_weights_do_not_matter():
    tower, given = build(anchored=False), maps()
    before = tower(*given)
    given[2] = given[2] + 1
    torch.testing.assert_close(tower(*given).regions, before.regions)


class Model:
    """In place of the mini model."""

    name = "mini"

    def embed_texts(self, words):
        return F.one_hot(torch.tensor([len(word) % TEXTS for word in words]), TEXTS).float()

    def pyramid(self, pixels):
        height, width = (length // 32 for length in pixels.shape[2:])
        torch.manual_seed(height)
        return [None, None, *maps(height, width, 1)[:2]]

    def anchor_weights(self, last):
        return maps(*last.shape[2:], 1)[2]


def test_a_photo_of_any_shape_is_one_window(random):
    encoder = MiniRegionEncoder(Model(), build())
    for size in ((1, 1), (40, 300), (70, 50)):
        pixels = random.integers(0, 255, (*size, 3), np.uint8)
        layout = encoder.layout(size, SegCLIPMiniOptions())
        read = encoder.read_windows(pixels, layout, lambda _: None)
        assert layout.count == 1
        assert max(layout.size) == 384
        assert read.regions.shape == (1, REGIONS, TEXTS)
        assert read.soft.shape == (1, REGIONS, *layout.grid)
        stages = Stages(Cache(10**8), SerialWorker(), ignore_progress)
        found = SegCLIP(encoder).segment(
            image.from_array(pixels), vocabulary.parse("a, bb, ccc"), SegCLIPMiniOptions(background=0.0), stages
        )
        assert found.size == size


def test_the_bundled_model_finds_a_cat():
    photo = image.load(GALLERY / "cat_mirror.jpg")
    stages = Stages(Cache(10**9), SerialWorker(), ignore_progress)
    method = SegCLIP(load_encoder(MiniModel(), "cpu"))
    found = method.segment(photo, vocabulary.parse("cat, airplane, pizza"), SegCLIPMiniOptions(background=0.0), stages)
    assert (found.labels == 0).mean() > 0.5
    (formed,) = found.evidence
    assert isinstance(formed, RegionMap)
    assert len(formed.captions) == 8
