"""The decoder as it begins: it repeats what the mini model says, and can learn from there."""

import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.mini import DECODER_SIZES, FOLD
from train.mini.sed import initialisation
from train.mini.sed.training import SEDMiniTraining, balanced_binary_cross_entropy, balanced_class_cross_entropy

T, SIDES = 5, (3, 4)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    made = Decoder(DECODER_SIZES)
    initialisation.initialise_decoder(made)
    return made


@pytest.fixture
def inputs() -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    sides = ([side * 2**stage for side in SIDES] for stage in (1, 2, 3))
    skips = [torch.randn(c, *size, generator=generator) for c, size in zip(DECODER_SIZES.skips, sides, strict=True)]
    return torch.randn(T, DECODER_SIZES.prompts, *SIDES, generator=generator), skips


def decoded(decoder, inputs) -> torch.Tensor:
    cost, skips = inputs
    with torch.inference_mode():
        return decoder(cost[None], [level[None] for level in skips])[-1][0]


def test_the_result_repeats_the_mean_of_the_readings(decoder, inputs):
    folds = (FOLD, FOLD, FOLD // 2)
    parts = inputs[0][:, :-1].split([fold**2 for fold in folds], 1)
    middle, large, small = (F.pixel_shuffle(part, fold)[:, 0] for part, fold in zip(parts, folds, strict=True))
    fine = F.interpolate(small[None], scale_factor=2, mode="nearest")[0]
    said = sum(weight * part for weight, part in zip(initialisation.MIX, (middle, large, fine), strict=True))
    result = decoded(decoder, inputs)
    together = torch.stack([result.flatten(), said.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.99
    assert (result.argmax(0) == said.argmax(0)).float().mean() > 0.98
    assert abs(((result - initialisation.BIAS) / said).median() / initialisation.GAIN - 1) < 0.2


def test_a_class_that_is_everywhere_stays_above_one_that_is_nowhere(decoder, inputs):
    cost = inputs[0].clone()
    cost[0] += 2
    result = decoded(decoder, (cost, inputs[1]))
    level = result.mean((1, 2))
    assert level[0] - level[1:].max() > initialisation.GAIN  # group normalisation alone would make them equal


def test_every_parameter_learns(decoder, inputs):
    cost, skips = inputs
    targets = (torch.rand(T, *(8 * side for side in SIDES)) < 0.3).float()
    training = SEDMiniTraining(decoder)
    batch = {"cost": [cost], "skips": [skips], "targets": [targets], "counted": [targets >= 0]}
    optimizer = torch.optim.SGD(training.parameters(), 0.1)
    for _ in range(2):  # the last head begins with weights of zero for most of its inputs
        optimizer.zero_grad()
        sum(training(batch).values()).backward()
        optimizer.step()
    still = {name for name, value in decoder.named_parameters() if value.grad is None or not value.grad.any()}
    assert not still


def test_only_what_is_known_counts():
    logits = torch.tensor([[[0.0, 8.0]], [[8.0, -8.0]]])
    targets = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    counted = torch.tensor([[[True, False]], [[False, True]]])
    expected = (torch.tensor(2.0).log() + F.softplus(torch.tensor(-8.0))) / 2
    torch.testing.assert_close(balanced_binary_cross_entropy(logits, targets, counted), expected)
    assert balanced_binary_cross_entropy(logits, targets, torch.zeros_like(counted)) == 0


def test_coarser_logits_are_judged_at_the_resolution_of_the_targets():
    targets = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]).expand(1, 4, 4)
    right = torch.tensor([[[9.0, -9.0]]]).expand(1, 2, 2)
    counted = torch.ones(1, 4, 4, dtype=torch.bool)
    assert balanced_binary_cross_entropy(right, targets, counted) < 0.1
    assert balanced_binary_cross_entropy(-right, targets, counted) > 5


def test_the_choice_weighs_classes_by_the_root_of_their_places():
    logits = torch.zeros(2, 1, 5)
    logits[0, 0, :4] = 3.0  # the four places of the first class are right, that of the second is not decided
    targets = torch.tensor([[[1.0, 1, 1, 1, 0]], [[0, 0, 0, 0, 1.0]]])
    right, undecided = F.softplus(torch.tensor(-3.0)), torch.tensor(2.0).log()
    counted = torch.ones_like(targets, dtype=torch.bool)
    torch.testing.assert_close(
        balanced_class_cross_entropy(logits, targets, counted), (4 / 2 * right + undecided) / (4 / 2 + 1)
    )


def test_the_choice_is_among_what_counts_and_needs_a_class():
    logits, targets = torch.tensor([[[0.0]], [[9.0]]]), torch.tensor([[[1.0]], [[0.0]]])
    among = torch.tensor([[[True]], [[True]]])
    assert balanced_class_cross_entropy(logits, targets, among) > 8
    assert balanced_class_cross_entropy(logits, targets, among & torch.tensor([[[True]], [[False]]])) < 1e-3
    assert balanced_class_cross_entropy(logits, torch.zeros_like(targets), among) == 0
