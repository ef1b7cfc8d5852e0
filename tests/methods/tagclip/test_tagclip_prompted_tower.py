"""TagCLIP's image encoder against the numbers of its reference, and what must hold whatever its weights."""

import math

import pytest
import torch

from ovseg_demo.methods.tagclip.checkpoint import split_checkpoint
from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower
from ovseg_demo.models.clip.optimised import optimise
from ovseg_demo.models.clip.positions import resize_positions
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import drawn, fixture, sampled
from tests.helpers.tagclip_models import PROMPTS, WIDTH, clip, published

REFERENCE = fixture("tagclip_parity.json")["encoder"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A tower's weights."""
    found = split_checkpoint(published("zegclip")).clip
    return {name.removeprefix("visual."): value for name, value in found.items() if name.startswith("visual.")}


@pytest.fixture
def tower(state) -> PromptedTower:
    made = clip().visual.to_empty(device="cpu").eval()
    load_strict(made, state, "tiny")
    return made


@pytest.fixture(params=[False, True], ids=["plain", "for inference"])
def either(tower, request) -> PromptedTower:
    return (optimise(tower, "float32") if request.param else tower).requires_grad_(False)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: "{} x {}".format(*case["size"]))
@torch.inference_mode()
def test_patches_and_image_embedding_are_those_of_the_reference(either, case):
    """At the side the position embeddings were made for, a larger one, and one that is not square."""
    height, width = case["size"]
    found = either(drawn("pixels", (2, 3, height, width)))
    assert found.patches.shape == (2, WIDTH, height // 8, width // 8)
    torch.testing.assert_close(sampled(found.patches.contiguous()), torch.tensor(case["patches"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.images, torch.tensor(case["images"]), atol=1e-5, rtol=0)


def test_embeddings_are_unit_vectors(either):
    found = either(drawn("pixels", (2, 3, 32, 40)))
    torch.testing.assert_close(found.patches.norm(dim=1), torch.ones(2, 4, 5))
    torch.testing.assert_close(found.images.norm(dim=1), torch.ones(2))


def test_images_of_a_batch_do_not_meet(either):
    pixels = drawn("pixels", (2, 3, 32, 32))
    together, alone = either(pixels), either(pixels[1:])
    torch.testing.assert_close(together.patches[1:], alone.patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.images[1:], alone.images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", range(3))
def test_every_layer_reads_its_own_prompts(either, layer):
    pixels = drawn("pixels", (1, 3, 32, 32))
    before = either(pixels).patches
    prompts = either.prompt_embeddings if layer == 0 else either.deep_prompt_embeddings[layer - 1 : layer]
    prompts += drawn("other prompts", prompts.shape)
    assert (either(pixels).patches - before).abs().max() > 1e-2


def test_the_norm_before_the_last_is_finer_than_that(tower):
    assert (tower.prompt_norm.eps, tower.ln_post.eps) == (1e-6, 1e-5)


def test_prompts_are_dropped_out_in_training_only(tower):
    pixels = drawn("pixels", (1, 3, 32, 32))
    tower.train()
    assert (tower(pixels).patches - tower(pixels).patches).abs().max() > 1e-3
    tower.eval()
    assert torch.equal(tower(pixels).patches, tower(pixels).patches)


def test_enlarged_positions_are_those_that_a_tower_reads_a_larger_image_with(tower):
    pixels = drawn("pixels", (1, 3, 48, 48))
    wanted = tower(pixels)
    tower.positional_embedding = torch.nn.Parameter(resize_positions(tower.positional_embedding, (6, 6), "bilinear"))
    assert tower.positional_embedding.shape == (37, 128)
    found = tower(pixels)
    torch.testing.assert_close(found.patches, wanted.patches)
    torch.testing.assert_close(found.images, wanted.images)


def test_fresh_prompts():
    tower = clip().visual.to_empty(device="cpu")
    tower.initialise_prompts()
    bound = math.sqrt(6 / (3 * 8 * 8 + 128))
    for prompts in (tower.prompt_embeddings, tower.deep_prompt_embeddings):
        assert prompts.shape[1:] == (PROMPTS, 128)
        assert prompts.abs().max() <= bound
        assert prompts.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert tower.prompt_proj.weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.1)
    assert not tower.prompt_proj.bias.any()
