"""Regions are read as at inference, epochs go once through all pairs, and only what a variant trains is trained."""

import math

import numpy as np
import pytest
import torch
from accelerate import PartialState
from open_clip import SimpleTokenizer
from torch.nn import functional as F

from ovseg_demo.models.region_crops import masked_crops_and_masks
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from tests.helpers.pairs_data import COLOURS, folder_of, pair
from train.common import contrastive
from train.common.run_folder import TrainingError
from train.common.sampling import StepGenerator
from train.ovseg.clip import initial_model
from train.ovseg.clip.adaptation import AdaptationTraining, retrieval_accuracy
from train.ovseg.clip.pair_batches import PairBatches, region_of_pair
from train.ovseg.pairs.shards import PairShards

WORDS = list(COLOURS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> PairShards:
    pairs = [pair(WORDS[n % 4], f"set/{n}", (20 + n, 30), n) for n in range(21)]
    return PairShards(folder_of(tmp_path_factory.mktemp("pairs"), pairs))


@pytest.fixture
def clip():
    PartialState(cpu=True)
    return initial_model.tiny_clip(0)


def batches(shards: PairShards, size: int = 3, side: int = 64) -> PairBatches:
    return PairBatches(shards, np.arange(1, 21), size, side, SimpleTokenizer(), 0)


def test_a_whole_region_is_what_inference_reads(shards):
    one = shards[5]
    photo = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    x0, y0, x1, y1 = one.box
    photo[y0:y1, x0:x1] = one.crop
    mask = np.zeros(photo.shape[:2], bool)
    mask[y0:y1, x0:x1] = one.mask
    proposals = MaskProposals.from_masks(mask[None], np.ones(1))
    [(crops, masks)] = masked_crops_and_masks(photo, proposals, size=64, mean=CLIP_MEAN, std=CLIP_STD, batch_size=1)
    crop, inside = region_of_pair(one, 64)
    torch.testing.assert_close(crop, crops[0], rtol=0, atol=0)
    assert torch.equal(inside, masks[0])
    assert (crop[:, 50:, 40:] == 0).all(), "what is outside is filled with the mean, whatever the photo has there"


def test_a_part_is_random_and_follows_from_its_generator(shards):
    def drawn(seed):
        torch.manual_seed(seed + 1)
        return region_of_pair(shards[3], 64, torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    one, same, other = drawn(0), drawn(0), drawn(1)
    assert torch.equal(one[0], same[0])
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == (3, 64, 64)
    assert 0.3 < one[1].float().mean() < 0.9
    torch.set_rng_state(state)
    region_of_pair(shards[3], 64, torch.Generator())
    assert torch.equal(torch.get_rng_state(), state), "the numbers of layers that draw stay as they were"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_epoch_has_every_pair_once_over_all_processes(shards, monkeypatch, processes):
    data, seen = batches(shards), []
    steps = data.steps(processes)
    assert steps == 20 // (3 * processes)
    monkeypatch.setattr(PairShards, "__getitem__", lambda self, index: seen.append(index) or pair("grass"))
    epochs = []
    for epoch in range(2):
        seen.clear()
        for step in range(steps):
            for process in range(processes):
                batch = data(StepGenerator(0, epoch * steps + step, process, processes))
                assert batch["crops"].shape == (3, 3, 64, 64)
        assert len(set(seen)) == len(seen) == 3 * processes * steps
        assert set(seen) <= set(range(1, 21))
        epochs.append(list(seen))
    assert epochs[0] != epochs[1]


def test_a_batch_follows_from_its_turn(shards):
    one, same = (batches(shards)(StepGenerator(0, 4, 0, 1)) for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, same[name])
    assert not torch.equal(one["crops"], batches(shards)(StepGenerator(1, 4, 0, 1))["crops"])
    assert one["masks"].dtype == torch.bool
    assert one["tokens"].shape == (3, 77)


def test_too_few_pairs_for_a_step_are_an_error(shards):
    with pytest.raises(TrainingError, match=r"^There are 20 pairs to train on, but a step takes 22; collect more, or"):
        batches(shards, size=11).steps(2)


def trained(module: torch.nn.Module) -> set[str]:
    return {name for name, value in module.named_parameters() if value.requires_grad}


def gradients(clip, shards, prompts: bool) -> tuple[AdaptationTraining, float]:
    module = AdaptationTraining(clip, prompts)
    loss = module(batches(shards, 8)(StepGenerator(0, 0, 0, 1)))["contrastive"]
    loss.backward()
    return module, loss.item()


def test_full_tuning_trains_the_image_tower_and_the_scale(clip, shards):
    module, loss = gradients(clip, shards, False)
    assert trained(module) == {f"clip.visual.{n}" for n, _ in clip.visual.named_parameters()} | {"clip.logit_scale"}
    assert all(value.grad.abs().sum() > 0 for value in module.parameters() if value.requires_grad)
    assert 0.5 * math.log(8) < loss < 3 * math.log(8)


def test_prompt_tuning_trains_the_prompts_alone(clip, shards):
    clip.visual.initialise_prompts()
    module, _ = gradients(clip, shards, True)
    assert trained(module) == {"clip.visual.mask_embedding"}
    assert (clip.visual.mask_embedding.grad.flatten(1).abs().sum(1) > 0).all()


def test_the_scale_stays_below_100(clip, shards):
    clip.logit_scale.data.fill_(9.0)
    _, loss = gradients(clip, shards, False)
    assert clip.logit_scale.item() == pytest.approx(math.log(100))
    assert clip.logit_scale.grad is not None
    assert math.isfinite(loss)


def test_the_loss_is_symmetric_and_contrastive(clip, shards):
    batch = batches(shards, 8)(StepGenerator(0, 0, 0, 1))
    with torch.no_grad():
        loss = AdaptationTraining(clip, False)(batch)["contrastive"]
        regions = F.normalize(clip.visual(batch["crops"]), dim=-1)
        logits = clip.logit_scale.exp() * regions @ F.normalize(clip.encode_text(batch["tokens"]), dim=-1).T
    both = [F.cross_entropy(each, torch.arange(8)) for each in (logits, logits.T)]
    torch.testing.assert_close(loss, sum(both) / 2)


def test_the_logits_are_float32_in_mixed_precision(clip, shards, monkeypatch):
    seen = []

    class Watched(contrastive.ClipLoss):
        def get_logits(self, *given, **named):
            found = super().get_logits(*given, **named)
            seen.extend(each.dtype for each in found)
            return found

    monkeypatch.setattr(contrastive, "ClipLoss", Watched)
    module = AdaptationTraining(clip, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert clip.visual(torch.zeros(1, 3, 64, 64)).dtype == torch.bfloat16
        module(batches(shards)(StepGenerator(0, 0, 0, 1)))
    assert set(seen) == {torch.float32}


def test_regions_learn_their_words(clip, shards):
    regions = [region_of_pair(shards[row], 64) for row in range(4)]
    crops, masks = (torch.stack(each) for each in zip(*regions, strict=True))
    batch = {"crops": crops, "masks": masks, "tokens": SimpleTokenizer()(WORDS)}
    before = retrieval_accuracy(clip, shards, range(21), SimpleTokenizer())
    module = AdaptationTraining(clip, False)
    optimizer = torch.optim.AdamW([v for v in module.parameters() if v.requires_grad], 2e-3)
    for _ in range(25):
        optimizer.zero_grad()
        module(batch)["contrastive"].backward()
        optimizer.step()
    after = retrieval_accuracy(clip, shards, range(21), SimpleTokenizer())
    assert before < 0.5 < 0.7 < after, "of four regions the model learns the colours of all"
