"""SED's decoder against the numbers of its reference, and what must hold whatever its weights."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.sed.decoder import Decoder, DecoderSizes, cost_map
from tests.helpers.oracle import drawn, fixture, sampled, weights

SIZES = DecoderSizes(prompts=5, skips=(12, 10, 6), widths=(32, 32, 16, 16), guides=(8, 6, 4))
BATCH, CLASSES, CHANNELS, HEIGHT, WIDTH = 2, 3, 9, 5, 7
"""Odd sides, so that pooling leaves a row and a column out."""


@pytest.fixture
def decoder() -> Decoder:
    made = Decoder(SIZES)
    state = made.state_dict()
    drawn_weights = weights({_name_in_fixture(name): value.shape for name, value in state.items()})
    made.load_state_dict({name: drawn_weights[_name_in_fixture(name)] for name in state})
    return made


def _name_in_fixture(name: str) -> str:
    """The name from which a tensor's numbers were drawn when the reference was run for the fixture."""
    return name.replace(".fc1.", ".widen.").replace(".fc2.", ".narrow.").replace(".layer_scale", ".gain")


def inputs() -> tuple[Tensor, list[Tensor]]:
    """Cost map and skips."""
    dense = drawn("dense", (BATCH, CHANNELS, HEIGHT, WIDTH))
    texts = drawn("texts", (CLASSES, SIZES.prompts, CHANNELS))
    finer = zip(SIZES.skips, (2, 4, 8), strict=True)
    skips = [drawn(f"skip{i}", (BATCH, c, HEIGHT * n, WIDTH * n)) for i, (c, n) in enumerate(finer)]
    return cost_map(dense, texts), skips


@pytest.mark.parametrize("pooling", [1, 2])
def test_logits_are_those_of_the_reference(decoder, pooling):
    with torch.inference_mode():
        logits = decoder(*inputs(), pooling=pooling)
    for scale, found, wanted in zip(
        (1, 2, 4, 8), logits, fixture("sed_decoder.json")["logits"][str(pooling)], strict=True
    ):
        assert found.shape == (BATCH, CLASSES, HEIGHT * scale, WIDTH * scale)
        torch.testing.assert_close(sampled(found), torch.tensor(wanted), atol=1e-5, rtol=0)


def test_the_cost_map_is_the_cosine_of_every_place_and_prompt():
    dense, texts = drawn("dense", (2, 9, 5, 7)), drawn("texts", (3, 5, 9))
    found = cost_map(7 * dense, 0.1 * texts)
    assert found.shape == (2, 3, 5, 5, 7)
    for image, label, prompt, row, column in [(0, 0, 0, 0, 0), (1, 2, 4, 4, 6), (1, 0, 3, 2, 5)]:
        wanted = F.cosine_similarity(dense[image, :, row, column], texts[label, prompt], dim=0)
        torch.testing.assert_close(found[image, label, prompt, row, column], wanted)


@pytest.mark.parametrize("pooling", [1, 2])
def test_the_order_of_classes_does_not_matter(decoder, pooling):
    cost, skips = inputs()
    order = torch.tensor([2, 0, 1])
    with torch.inference_mode():
        for there, here in zip(decoder(cost[:, order], skips, pooling), decoder(cost, skips, pooling), strict=True):
            assert not torch.allclose(here, here[:, order], atol=1e-3)
            torch.testing.assert_close(there, here[:, order], atol=1e-5, rtol=0)


def test_images_of_a_batch_do_not_meet(decoder):
    cost, skips = inputs()
    with torch.inference_mode():
        for together, alone in zip(decoder(cost, skips), decoder(cost[1:], [s[1:] for s in skips]), strict=True):
            torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


def test_classes_meet(decoder):
    cost, skips = inputs()
    with torch.inference_mode():
        before, *after = (
            (all_[:, :2] - fewer).abs().max()
            for all_, fewer in zip(decoder(cost, skips), decoder(cost[:, :2], skips), strict=True)
        )
    assert before < 1e-5
    assert min(after) > 1e-3


@pytest.mark.parametrize("output", range(4))
def test_auxiliary_heads_learn_alone(decoder, output):
    cost, skips = inputs()
    cost.requires_grad_()
    for skip in skips:
        skip.requires_grad_()
    decoder(cost, skips)[output].square().sum().backward()
    learning = {name for name, value in decoder.named_parameters() if value.grad is not None}
    head = {f"heads.{output}.weight", f"heads.{output}.bias"}
    others = {name for name, _ in decoder.named_parameters() if name.startswith("heads.")} - head
    reached = [each.grad is not None for each in (cost, *skips)]
    if output < 3:
        assert (learning, any(reached)) == (head, False)
    else:
        assert (learning, all(reached)) == ({name for name, _ in decoder.named_parameters()} - others, True)
