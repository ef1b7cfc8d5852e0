"""What learns at which rate, five steps beside the reference, and chunks that have the gradients of the whole batch."""

import pytest
import torch
from accelerate import PartialState
from open_clip import tokenize
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ovseg_demo.methods.segclip import group_module
from ovseg_demo.methods.segclip.checkpoint import ReleasedModel, join_checkpoint, split_checkpoint
from ovseg_demo.methods.segclip.model import build_segclip
from ovseg_demo.methods.segclip.reconstruction import reconstruction_branch
from tests.helpers import segclip_models
from tests.helpers.oracle import drawn, fixture, sampled
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import parameter_groups
from train.segclip import initial_model, recipes, training
from train.segclip.training import RATES, SegCLIPTraining, decays

REFERENCE = fixture("segclip_training.json")


def reference_model(mixes: bool) -> SegCLIPTraining:
    parts = split_checkpoint(segclip_models.published() | {"clip.logit_scale": torch.tensor(2.5)})
    clip, tower = build_segclip(parts.clip, "tiny", segclip_models.ARCHITECTURE)
    branch = reconstruction_branch(tower)
    branch.load_state_dict(parts.reconstruction)
    tower.group.mixes_batch = mixes
    return SegCLIPTraining(clip, branch, "code")


class Drawn:
    """The batches and the random numbers that the reference had."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.step = 0
        patched.setattr(training, "draw_kept", self._kept)
        patched.setattr(torch.Tensor, "exponential_", lambda values: self._exponential(values))

    def __call__(self, generator) -> dict:
        self.step = generator.step
        even = drawn(f"photo {self.step}", (3, 3, segclip_models.SIDE, segclip_models.SIDE)) / 12**0.5 + 0.5
        texts = ["a cat on a sofa", "two dogs", "grass under a sky"]
        return {
            "images": (even * 255).byte(),
            "tokens": tokenize(texts, context_length=32),
            "superpixels": torch.arange(108).view(3, 36) // 5,
        }

    def _kept(self, images: int, patches: int, device) -> Tensor:
        noise = drawn(f"mask {self.step}", (images, patches + 1)).abs()
        noise[:, 0] = -1
        return noise.argsort(1)[:, 1:9] - 1

    def _exponential(self, values: Tensor) -> Tensor:
        name = "noise" if values.shape[2] == 36 else "masked noise"
        return values.copy_((-drawn(f"{name} {self.step}", tuple(values.shape))).exp())


@pytest.fixture(scope="module", autouse=True)
def _architecture(tmp_path_factory):
    PartialState(cpu=True)
    segclip_models.register(tmp_path_factory.mktemp("architecture"))


def test_rates_decay_and_frozen_parameters_are_those_of_the_reference():
    groups = parameter_groups(reference_model(False), recipes.schedule(100), RATES, decays)
    found = [[g["lr"], g["weight_decay"], len(g["params"]), sum(p.numel() for p in g["params"])] for g in groups]
    assert sorted(found) == REFERENCE["groups"]


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"mixes-{case['mixes']}")
def test_five_steps_are_those_of_the_reference(case, tmp_path, monkeypatch):
    module = reference_model(case["mixes"])
    before = {name: value.clone() for name, value in published(module).items()}
    losses = []
    module.register_forward_hook(lambda _, given, found: losses.append(sum(found.values()).item()))
    schedule = recipes.schedule(100)
    assert schedule.warmup == 15
    fit(module, Drawn(monkeypatch), schedule, RunFolder(tmp_path, {}), rates=RATES, decays=decays, stop_after=5)
    assert losses == pytest.approx(case["losses"], abs=1e-5)
    after = published(module)
    for name, moves in case["moves"].items():
        move = sampled(after[name] - before[name])[:10]
        rounding = 2e-7 + 1e-3 * move.abs().max().item()  # gains near 1 move by some 4e-6, about 30 times their digits
        torch.testing.assert_close(move, torch.tensor(moves), rtol=0, atol=rounding, msg=name)


def published(module: SegCLIPTraining) -> dict[str, Tensor]:
    return join_checkpoint(ReleasedModel(module.clip.state_dict(), module.branch.state_dict()))


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """Five photos with captions, of which chunks of two leave a single one."""
    numbers = torch.Generator().manual_seed(1)
    words = ["a cat", "two dogs on grass", "the sky", "a red car in the street", "snow"]
    return {
        "images": torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8, generator=numbers),
        "tokens": tokenize(words, context_length=32),
        "superpixels": torch.randint(5, (5, 16), generator=numbers),
    }


def tiny(chunk: int | None = None, form="code") -> SegCLIPTraining:
    return SegCLIPTraining(*initial_model.tiny_model(0), form, chunk).train()


def gradients(module: SegCLIPTraining, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The losses of a batch, and the gradients of their sum."""
    torch.manual_seed(3)
    losses = module(batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_have_the_losses_and_gradients_of_the_whole_batch(batch, chunk, monkeypatch):
    """With the same noise for each image, since it would else be drawn in another order."""
    noise = {count: drawn(f"noise {count}", (1, 8, count)).exp() for count in (16, 3)}
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda values: values.copy_(noise[values.shape[2]]))
    whole, of_whole = gradients(tiny(), batch)
    losses, found = gradients(tiny(chunk), batch)
    for name, loss in whole.items():
        torch.testing.assert_close(losses[name], loss, rtol=1e-6, atol=1e-7)
    assert found.keys() == of_whole.keys()
    for name, gradient in of_whole.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6 + 1e-5 * gradient.abs().max().item())


def test_a_chunk_is_computed_again_with_the_same_random_numbers(batch, monkeypatch):
    _, found = gradients(tiny(2), batch)
    monkeypatch.setattr(training, "checkpoint", lambda embed, *chunk, use_reentrant: embed(*chunk))
    _, kept = gradients(tiny(2), batch)
    assert all(torch.equal(found[name], gradient) for name, gradient in kept.items())


def test_chunks_keep_no_activations(batch):
    def kept(module: SegCLIPTraining) -> int:
        """Bytes of what the forward pass keeps for the backward pass, less the parameters."""
        weights = {value.data_ptr() for value in module.parameters()}
        sizes: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            if value.data_ptr() not in weights:
                sizes[value.data_ptr()] = value.nbytes
            return value

        with saved_tensors_hooks(pack, lambda value: value):
            losses = module(batch)
        assert losses["contrastive"].requires_grad
        return sum(sizes.values())

    assert kept(tiny(2)) < 0.02 * kept(tiny())


@pytest.mark.parametrize(("form", "frozen"), [("code", 7), ("paper", 0)])
def test_every_trained_parameter_has_a_gradient(batch, form, frozen):
    module = tiny(form=form)
    fixed = [name for name, value in module.named_parameters() if not value.requires_grad]
    assert len(fixed) == frozen
    _, found = gradients(module, batch)
    assert found.keys() == {name for name, _ in module.named_parameters()} - set(fixed)
    unused = {name for name, gradient in found.items() if not gradient.any()}
    assert unused == ({"clip.visual.class_embedding"} if form == "paper" else set())


def test_the_papers_superpixels_weigh_eight_times_more(batch):
    losses = [gradients(tiny(form=form), batch)[0] for form in ("code", "paper")]
    for name, factor in {"contrastive": 1, "reconstruction": 1, "superpixels": 8}.items():
        torch.testing.assert_close(losses[1][name], factor * losses[0][name])


def test_the_scale_stays_below_100(batch):
    module = tiny()
    module.clip.logit_scale.data.fill_(9.0)
    gradients(module, batch)
    assert module.clip.logit_scale.exp().item() == pytest.approx(100)


def test_regions_are_drawn_in_float32_in_mixed_precision(batch, monkeypatch):
    seen, assign = [], group_module.assign
    monkeypatch.setattr(
        group_module, "assign", lambda logits, drawn: seen.append(logits.dtype) or assign(logits, drawn)
    )
    with torch.autocast("cpu", torch.bfloat16):
        losses, found = gradients(tiny(2), batch)
    assert set(seen) == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in found.values())
