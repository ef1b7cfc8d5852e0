"""SegCLIP's losses on equal weights and equal noise are those of the reference."""

import pytest
import torch
from open_clip import tokenize
from torch.nn import functional as F

from ovseg_demo.methods.segclip.checkpoint import split_checkpoint
from ovseg_demo.methods.segclip.model import build_segclip
from ovseg_demo.models.clip.text import encode_texts
from tests.helpers import segclip_models
from tests.helpers.oracle import drawn, fixture
from train.common.contrastive import contrastive_loss
from train.segclip.losses import superpixel_loss

REFERENCE = fixture("segclip.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    segclip_models.register(tmp_path_factory.mktemp("architecture"))
    clip = split_checkpoint(segclip_models.published()).clip
    return build_segclip(clip, "tiny", segclip_models.ARCHITECTURE)


@pytest.mark.parametrize("case", REFERENCE["losses"], ids=lambda case: f"mixes-{case['mixes']}")
@torch.no_grad()
def test_a_batch_has_the_losses_of_the_reference(model, case, monkeypatch):
    """With images that keep to themselves, and mixed as by the released training code."""
    clip, tower = model
    noise = drawn("noise", (2, 8, 36))
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_((-noise).exp()))
    monkeypatch.setattr(tower.group, "mixes_batch", case["mixes"])
    monkeypatch.setattr(tower.group, "training", True)
    found = tower(drawn("pixels", (2, 3, segclip_models.SIDE, segclip_models.SIDE)))
    texts = encode_texts(clip, tokenize(["a cat on a sofa", "two dogs"]))
    contrastive = contrastive_loss(found.images, texts, clip.logit_scale.exp().clamp(max=100))
    assert contrastive.item() == pytest.approx(case["contrastive"], abs=1e-5)
    superpixels = (torch.arange(72) // 5).view(2, 36)
    assert superpixel_loss(found.grouping.hard, superpixels).item() == pytest.approx(case["superpixels"], abs=1e-7)


def test_the_paper_does_not_divide_by_the_number_of_regions():
    hard = F.one_hot(torch.tensor([[0, 1, 1, 3], [2, 2, 0, 1]]), 4).mT.float()
    superpixels = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    code, paper = (superpixel_loss(hard, superpixels, form) for form in ("code", "paper"))
    torch.testing.assert_close(paper, 4 * code)


def test_superpixels_that_are_regions_cost_nothing():
    hard = F.one_hot(torch.tensor([[0, 1, 1, 3]]), 4).mT.float()
    assert superpixel_loss(hard, torch.tensor([[7, 2, 2, 5]])) == 0
    assert superpixel_loss(hard, torch.tensor([[7, 2, 5, 5]])) > 0


def test_the_gradient_draws_a_patch_to_the_region_of_its_superpixel():
    hard = F.one_hot(torch.tensor([[0, 0, 1]]), 2).mT.float().requires_grad_()
    (gradient,) = torch.autograd.grad(superpixel_loss(hard, torch.zeros(1, 3)), hard)
    assert gradient[0, 0, 2] < 0 < gradient[0, 1, 2]
