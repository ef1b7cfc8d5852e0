"""What the smoke run of "SegCLIP (mini)" leaves, its variants, its views and the losses of its batches."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovseg_demo.methods.segclip.mini_model import MiniGroupingTower
from train.mini.segclip import __main__ as command
from train.mini.segclip.batches import CaptionedBatches
from train.mini.segclip.captioned_features import CAPTIONS, GRID, SIDE, CaptionedFeatures, join, superpixels_of, view_of
from train.mini.segclip.training import Losses, SegCLIPMiniTraining

PHOTOS = 6


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("mini.segclip").out


@pytest.fixture(scope="module")
def view() -> CaptionedFeatures:
    torch.manual_seed(0)
    half = GRID // 2
    return CaptionedFeatures(
        torch.randn(PHOTOS, 384, half, half).half(),
        torch.randn(PHOTOS, 120, GRID, GRID).half(),
        torch.randn(PHOTOS, 1280, half, half).half(),
        torch.randint(5, (PHOTOS, GRID * GRID)).short(),
        torch.nn.functional.normalize(torch.randn(PHOTOS, CAPTIONS, 384), dim=2).half(),
    )


def test_a_run_leaves_weights_that_fit_the_demo(whole):
    stored, wanted = load_file(whole / command.FILE), MiniGroupingTower().state_dict()
    assert {name: value.shape for name, value in stored.items()} == {
        name: value.shape for name, value in wanted.items()
    }
    assert (whole / command.FILE).stat().st_size < 6e6
    head, *lines = (whole / "log.csv").read_text().splitlines()
    assert head.split(",")[3:] == ["loss", "contrastive", "superpixels", "reconstruction"]
    assert [line.split(",")[0] for line in lines] == ["2", "4"]


def test_the_views_of_a_photo_are_all_of_it_and_parts_of_it(random):
    photo = random.integers(0, 255, (40, 60, 3)).astype("uint8")
    whole, part, again = view_of(photo, 3, 0), view_of(photo, 3, 1), view_of(photo, 3, 1)
    assert whole.shape == part.shape == (1, 3, SIDE, SIDE)
    assert torch.equal(part, again)
    assert not torch.equal(part, view_of(photo, 3, 2))
    torch.testing.assert_close(whole.mean(), (torch.from_numpy(photo).float().mean() - 127) / 128, atol=0.01, rtol=0)


def test_superpixels_follow_the_colours_of_a_photo():
    pixels = torch.full((1, 3, SIDE, SIDE), -0.9)
    pixels[..., : SIDE // 2] = 0.9
    labels = superpixels_of(pixels).view(GRID, GRID)
    assert (labels[:, : GRID // 2] == labels[0, 0]).all()
    assert (labels[:, GRID // 2 :] == labels[0, -1]).all()
    assert labels[0, 0] != labels[0, -1]


def test_a_batch_is_mirrored_as_one(view):
    """A photo that is not mirrored has its maps as they are, a mirrored one has all of them mirrored."""
    batch = CaptionedBatches([view], PHOTOS)(torch.Generator().manual_seed(0))
    original = {name: list(getattr(view, name)) for name in ("anchors", "coarse", "last")}
    seen = set()
    for photo in range(PHOTOS):
        (row,) = [
            row
            for row in range(PHOTOS)
            if any(torch.equal(batch["coarse"][photo], each) for each in _both_ways(original["coarse"][row]))
        ]
        mirrored = not torch.equal(batch["coarse"][photo], original["coarse"][row])
        seen.add(mirrored)
        for name, maps in original.items():
            assert torch.equal(batch[name][photo], _both_ways(maps[row])[mirrored])
        superpixels = view.superpixels[row].view(GRID, GRID)
        assert torch.equal(batch["superpixels"][photo], _both_ways(superpixels)[mirrored].flatten())
        assert any(torch.equal(batch["captions"][photo], caption) for caption in view.captions[row])
    assert seen == {False, True}


def _both_ways(maps: torch.Tensor) -> list[torch.Tensor]:
    return [maps, maps.flip(-1)]


def test_sets_are_joined_in_order(view):
    joined = join([view, view])
    assert torch.equal(joined.coarse[PHOTOS:], view.coarse)
    assert len(joined.captions) == 2 * PHOTOS


@pytest.mark.parametrize(
    ("losses", "names"),
    [
        (Losses(), ["contrastive", "superpixels", "reconstruction"]),
        (Losses(superpixels=0), ["contrastive", "reconstruction"]),
        (Losses(reconstruction=0, superpixels=0), ["contrastive"]),
    ],
)
def test_every_parameter_learns_from_the_losses_that_there_are(view, losses, names):
    torch.manual_seed(0)
    module = SegCLIPMiniTraining(MiniGroupingTower(width=64), GRID * GRID, losses)
    torch.nn.init.normal_(module.tower.projection.weight)  # it is zero, and passes nothing back, before training
    found = module(CaptionedBatches([view], PHOTOS)(torch.Generator().manual_seed(0)))
    assert list(found) == names
    sum(found.values()).backward()
    assert not [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]


def test_hidden_features_are_what_reconstruction_is_about(view):
    """A weight multiplies its loss."""
    batch = CaptionedBatches([view], PHOTOS)(torch.Generator().manual_seed(0))
    values = []
    for weight in (1.0, 2.0):
        torch.manual_seed(0)
        module = SegCLIPMiniTraining(MiniGroupingTower(width=64), GRID * GRID, Losses(weight, weight))
        values.append({name: value.item() for name, value in module(batch).items()})
    once, twice = values
    assert twice["contrastive"] == pytest.approx(once["contrastive"])
    assert twice["reconstruction"] == pytest.approx(2 * once["reconstruction"])
    assert twice["superpixels"] == pytest.approx(2 * once["superpixels"])
