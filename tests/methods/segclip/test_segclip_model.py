"""SegCLIP's modules on equal weights give what the reference's modules give."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ovseg_demo.methods.segclip import group_module
from ovseg_demo.methods.segclip.checkpoint import ReleasedModel, split_checkpoint
from ovseg_demo.methods.segclip.group_module import REGIONS, SemanticGroupModule
from ovseg_demo.methods.segclip.image_tower import GroupingTower
from ovseg_demo.methods.segclip.model import build_segclip
from ovseg_demo.methods.segclip.reconstruction import (
    ReconstructionBranch,
    draw_kept,
    reconstruction_branch,
    reconstruction_loss,
    sine_positions,
)
from ovseg_demo.weights.loading import load_strict
from tests.helpers import segclip_models
from tests.helpers.oracle import drawn, fixture, sampled
from tests.helpers.segclip_models import SIDE, WIDTH

REFERENCE = fixture("segclip.json")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> ReleasedModel:
    segclip_models.register(tmp_path_factory.mktemp("architecture"))
    return split_checkpoint(segclip_models.published())


@pytest.fixture(scope="module")
def tower(parts) -> GroupingTower:
    return build_segclip(parts.clip, "tiny", segclip_models.ARCHITECTURE)[1].requires_grad_(False)


@pytest.fixture(scope="module")
def branch(parts, tower) -> ReconstructionBranch:
    made = reconstruction_branch(tower)
    load_strict(made, parts.reconstruction, "tiny")
    return made.eval().requires_grad_(False)


@pytest.fixture
def group(tower) -> Iterator[SemanticGroupModule]:
    yield tower.group
    tower.group.eval()
    tower.group.mixes_batch = False


def use_noise(patch: pytest.MonkeyPatch, noise: Tensor) -> None:
    """Let the next Gumbel noise be these numbers; torch draws them as -log of exponentially distributed numbers."""
    patch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_((-noise).exp()))


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(sampled(found.detach()), torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "case",
    REFERENCE["group"],
    ids=lambda case: f"{case['shape']}{'-training' * case['training']}{'-mixing' * case['mixes']}",
)
def test_patches_gather_to_regions(group, case, monkeypatch):
    """With the gradient of straight-through assignment, and also where a centre remains without a patch."""
    batch, length = case["shape"]
    use_noise(monkeypatch, drawn("noise", (batch, REGIONS, length)))
    group.train(case["training"])
    group.mixes_batch = case["mixes"]
    patches = drawn("patches", (batch, length, WIDTH)).requires_grad_()
    found = group(patches)
    (gradient,) = torch.autograd.grad(found.regions, patches, drawn("weights", tuple(found.regions.shape)))
    close(found.regions, case["regions"])
    close(found.soft, case["soft"])
    assert found.hard.argmax(1).flatten().tolist() == case["hard"]
    assert found.hard.unique().tolist() == [0, 1]
    assert torch.equal(found.hard.sum(1), torch.ones(batch, length))
    scale = torch.tensor(case["gradient"]).abs().max()
    close(gradient / scale, [value / scale for value in case["gradient"]])


def test_only_training_mixes_images(group):
    patches = drawn("patches", (3, 5, WIDTH))
    expected = group(patches).regions
    group.mixes_batch = True
    assert torch.equal(group(patches).regions, expected)


def test_training_draws_regions_as_often_as_probable():
    torch.manual_seed(0)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().view(1, 3, 1).expand(1, 3, 20_000)
    _, hard = group_module.assign(logits, drawn=True)
    torch.testing.assert_close(hard.mean((0, 2)), torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)


@pytest.mark.parametrize("case", REFERENCE["images"], ids=lambda case: str(case["size"]))
def test_images_become_regions(tower, case):
    """Of the trained size, and of another one, whose positions are interpolated."""
    found = tower(drawn("pixels", (2, 3, *case["size"])))
    close(found.images, case["images"])
    close(found.regions, case["regions"])
    close(found.grouping.soft, case["soft"])


def test_images_of_any_shape_become_regions(tower):
    found = tower(drawn("pixels", (1, 3, 8, 75)))
    assert found.grid == (1, 9)
    assert found.regions.shape == (1, REGIONS, segclip_models.EMBEDDING)
    assert found.grouping.soft.shape == found.grouping.hard.shape == (1, REGIONS, 9)


def test_hidden_pixels_are_predicted(tower, branch):
    case = REFERENCE["reconstruction"]
    kept, pixels = torch.tensor(case["kept"]), drawn("pixels", (2, 3, SIDE, SIDE))
    predicted = branch(tower, pixels, kept)
    close(predicted, case["predicted"])
    assert reconstruction_loss(predicted, pixels, kept).item() == pytest.approx(case["loss"], abs=1e-5)


@pytest.mark.parametrize("case", REFERENCE["losses"], ids=lambda case: f"mixes-{case['mixes']}")
def test_hidden_pixels_are_predicted_in_training(tower, branch, group, case, monkeypatch):
    use_noise(monkeypatch, drawn("masked noise", (2, REGIONS, 8)))
    group.train()
    group.mixes_batch = case["mixes"]
    kept, pixels = torch.tensor(REFERENCE["reconstruction"]["kept"]), drawn("pixels", (2, 3, SIDE, SIDE))
    loss = reconstruction_loss(branch(tower, pixels, kept), pixels, kept)
    assert loss.item() == pytest.approx(case["reconstruction"], abs=1e-5)


def test_fixed_positions_are_those_of_the_published_size():
    """Columns before rows, sines before cosines; 48 patches of 196 are kept."""
    found = sine_positions(384, 14)
    assert found.shape == (197, 384)
    torch.testing.assert_close(found[0], torch.zeros(384))
    row, column = 3, 5
    here = found[1 + row * 14 + column]
    angles = 10_000 ** -(torch.arange(96) / 96)
    expected = [(column * angles).sin(), (column * angles).cos(), (row * angles).sin(), (row * angles).cos()]
    torch.testing.assert_close(here, torch.cat(expected))
    kept = draw_kept(3, 196)
    assert kept.shape == (3, 48)
    assert all(len(set(places)) == 48 for places in kept.tolist())
    assert not torch.equal(kept[0].sort().values, kept[1].sort().values)


def test_initial_weights_are_those_of_published_training(branch):
    torch.manual_seed(0)
    module = SemanticGroupModule(WIDTH)
    assert module.centres.std().item() == pytest.approx(0.02, rel=0.1)
    state = module.state_dict()
    assert state["region_mlp.1.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert state["region_mlp.1.bias"].abs().max() == 0
    fresh = ReconstructionBranch(WIDTH, 36, 192)
    assert fresh.decoder.predict.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert fresh.decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.3)
    torch.testing.assert_close(fresh.decoder.positions, branch.decoder.positions)
