"""Runs that are stopped, killed, starved of disk or spread over processes end as those that are left alone.

As a script, `test_loop.py FOLDER` is what one test has torchrun start in two processes.
"""

import os
import pickle
import random
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from torch import nn

from eval.datasets.base import DatasetError
from tests.helpers.paths import ROOT
from tests.helpers.processes import kill_during
from train.common import loop
from train.common.loop import fit
from train.common.run_folder import RunFolder, TrainingError
from train.common.sampling import StepGenerator, step_seeds
from train.common.schedule import Schedule

SCHEDULE = Schedule(steps=12, learning_rate=0.05, warmup=3, averaging=0.8, save_every=4, log_every=5)


class Net(nn.Module):
    """A frozen layer, buffers that move, dropout, and two losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tower = nn.Linear(4, 6).requires_grad_(False)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 2)

    def forward(self, batch: dict) -> dict:
        found = self.head(self.dropout(self.norm(self.tower(batch["photos"]))))
        return {"fit": (found - batch["labels"][0]).square().mean(), "size": 0.1 * found.square().mean()}


def draw(generator: torch.Generator) -> dict:
    photos = torch.randn(8, 4, generator=generator)
    return {"photos": photos, "labels": [photos[:, :2]], "name": "any"}


def train(folder: Path, schedule: Schedule = SCHEDULE, draw=draw, net: nn.Module | None = None, **options) -> nn.Module:
    return fit(net or Net(), draw, schedule, RunFolder(folder, asdict(schedule)), **options)


def strange() -> Net:
    """A net whose weights, and a process whose randomness, a state must set right."""
    net = Net()
    for value in (*net.head.parameters(), *net.norm.buffers()):
        value.data.fill_(7)
    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    return net


def state(folder: Path) -> dict:
    return torch.load(folder / "state.pt", weights_only=True)


def log(folder: Path) -> list[list[str]]:
    """log.csv less its seconds, which no two runs share."""
    return [line.split(",")[:1] + line.split(",")[2:] for line in (folder / "log.csv").read_text().splitlines()]


def assert_same(one: Path, other: Path) -> None:
    """Two folders hold the same run, to the bit."""
    states = [state(folder) for folder in (one, other)]
    for each in states:
        assert each["log"].pop("seconds") > 0
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert log(one) == log(other)
    assert sorted(os.listdir(one)) == sorted(os.listdir(other)) == ["config.json", "log.csv", "state.pt"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, nn.Module]:
    """The folder and the weights of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder)


@pytest.mark.parametrize("stops", [(1,), (0, 4, 7, 11), (12,)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(whole, tmp_path, stops):
    for stop in stops:
        train(tmp_path, net=strange() if (tmp_path / "state.pt").exists() else Net(), stop_after=stop)
        assert not stop or state(tmp_path)["step"] == stop
    net = train(tmp_path, net=strange())
    assert_same(whole[0], tmp_path)
    torch.testing.assert_close(net.state_dict(), whole[1].state_dict(), rtol=0, atol=0)
    assert [row[0] for row in log(tmp_path)] == ["step", "5", "10", "12"]
    assert not net.training


def test_a_run_that_was_killed_ends_as_one_that_was_not(whole, tmp_path):
    kill_during(train_until_killed, tmp_path)
    assert state(tmp_path)["step"] == 4
    assert (tmp_path / "state.pt.part").exists()
    assert log(tmp_path)[-1][0] == "5"
    with (tmp_path / "log.csv").open("a") as file:
        file.write("8,0.1")
    net = train(tmp_path, net=strange())
    assert_same(whole[0], tmp_path)
    torch.testing.assert_close(net.state_dict(), whole[1].state_dict(), rtol=0, atol=0)


def test_processes_train_one_model_and_go_on(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, __file__, str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (batches, first), (others, second) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(set(batches) | set(others)) == 2 * SCHEDULE.steps
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    head, *lines = log(tmp_path / "ranked")
    assert [dict(zip(head, line, strict=True))["rank"] for line in lines] == ["0.5"] * 3, "a mean over the processes"
    with pytest.raises(TrainingError, match=r"is of a run in 2 processes, not 1\.$"):
        train(tmp_path / "whole")


def test_every_step_draws_anew_and_apart_from_dropout():
    drawn = []
    for place in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)):
        set_seed(step_seeds(*place)[1])
        turn = StepGenerator(*place, 2)
        assert (turn.step, turn.process, turn.processes) == (*place[1:], 2)
        drawn += [torch.rand(1, generator=turn).item(), torch.rand(1).item(), random.random(), np.random.rand()]
    assert len(set(drawn)) == len(drawn)


def test_layers_draw_anew_at_every_step(tmp_path):
    drawn = []

    class Drawing(Net):
        def forward(self, batch: dict) -> dict:
            drawn.append(torch.rand(1).item())
            return super().forward(batch)

    train(tmp_path, net=Drawing())
    assert len(set(drawn)) == len(drawn) == SCHEDULE.steps


def test_batches_that_are_drawn_ahead_are_the_same(whole, tmp_path):
    train(tmp_path, workers=2, stop_after=5)
    net = train(tmp_path, net=strange(), workers=1)
    assert_same(whole[0], tmp_path)
    torch.testing.assert_close(net.state_dict(), whole[1].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_the_data_ends_the_run_as_itself(tmp_path, workers):
    def broken(turn):
        if turn.step == 5:
            raise DatasetError("photo.jpg cannot be used.")
        return draw(turn)

    with pytest.raises(DatasetError, match=r"^photo\.jpg cannot be used\.$"):
        train(tmp_path, draw=broken, workers=workers)
    assert state(tmp_path)["step"] == 4


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 704 vs 598")])
def test_a_full_disk_leaves_the_last_state(whole, tmp_path, monkeypatch, error):
    train(tmp_path, stop_after=4)
    before = (tmp_path / "state.pt").read_bytes()

    def full(_, file):
        file.write(b"half")
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match=r"^Cannot write into [^\n]+$"):
            train(tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before
    train(tmp_path)
    assert_same(whole[0], tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_really_full_leaves_the_last_state(tmp_path):
    train(tmp_path, stop_after=4)
    (tmp_path / "state.pt.part").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r": No space left on device\. What it holds is kept; [^\n]+$"):
        train(tmp_path)
    assert state(tmp_path)["step"] == 4


def test_another_configuration_is_refused(whole):
    with pytest.raises(TrainingError, match=r"holds a run with other settings \(seed was 0, now 1\)"):
        train(whole[0], replace(SCHEDULE, seed=1))


@pytest.mark.parametrize(
    "content", [b"", b"no state", pickle.dumps({"step": 3}, 2), "half"], ids=["empty", "text", "other", "half"]
)
def test_a_state_that_cannot_be_used_is_an_error_of_one_line(whole, tmp_path, content):
    saved = (whole[0] / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(saved[: len(saved) // 2] if content == "half" else content)
    with pytest.raises(TrainingError, match=r"^\S+state\.pt cannot be used \(\w+\); delete it to begin again\.$"):
        train(tmp_path)


def test_a_state_of_other_parameters_is_refused(tmp_path):
    train(tmp_path, stop_after=1)
    for part in ("tower", "head"):
        net = Net()
        getattr(net, part).requires_grad_(part == "tower")
        with pytest.raises(TrainingError, match=r"state\.pt cannot be used \(RuntimeError\)"):
            train(tmp_path, net=net)


def test_weights_are_averaged_exponentially(tmp_path):
    net, seen = Net(), []

    def watched(generator):
        seen.append(net.head.weight.detach().clone())
        return draw(generator)

    train(tmp_path, draw=watched, net=net)
    seen.append(state(tmp_path)["module"]["head.weight"])
    assert all(not torch.equal(one, other) for one, other in pairwise(seen))
    average = seen[0]
    for weight in seen[1:]:
        average = 0.8 * average + 0.2 * weight
    torch.testing.assert_close(net.head.weight.detach(), average)


def test_without_averaging_the_last_weights_are_kept(tmp_path):
    schedule = replace(SCHEDULE, averaging=0)
    net = train(tmp_path / "whole", schedule)
    train(tmp_path / "stopped", schedule, stop_after=7)
    train(tmp_path / "stopped", schedule, net=strange())
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    last = state(tmp_path / "whole")
    assert "averaged" not in last
    torch.testing.assert_close(net.head.weight, nn.Parameter(last["module"]["head.weight"]), rtol=0, atol=0)


def test_frozen_parameters_are_neither_changed_nor_stored(whole):
    folder, net = whole
    stored = state(folder)
    assert {name.partition(".")[0] for name in stored["module"]} == {"norm", "head"}
    assert sum(value.numel() for value in stored["averaged"].values()) == sum(
        value.numel() for value in net.parameters() if value.requires_grad
    )
    torch.testing.assert_close(net.tower.state_dict(), Net().tower.state_dict(), rtol=0, atol=0)


class Rootless(Net):
    """Its loss is finite, its gradient is not."""

    def forward(self, batch: dict) -> dict:
        return super().forward(batch) | {"root": (0 * self.head.weight).sqrt().sum()}


class Ranked(Net):
    """Its loss tells which process it is in."""

    def forward(self, batch: dict) -> dict:
        return {"rank": 0 * sum(super().forward(batch).values()) + PartialState().process_index}


@pytest.mark.parametrize("what", ["fit is inf", "gradient is nan"])
def test_numbers_that_are_none_end_the_run_before_they_reach_the_state(tmp_path, what):
    train(tmp_path, stop_after=4)
    before = (tmp_path / "state.pt").read_bytes()

    def infinite(generator):
        return draw(generator) | {"labels": [torch.full((8, 2), torch.inf)]}

    options = {"draw": infinite} if what == "fit is inf" else {"net": Rootless()}
    with pytest.raises(TrainingError, match=rf"^{what} at step 5; a lower learning rate may help\.$"):
        train(tmp_path, replace(SCHEDULE), **options)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_the_learning_rate_rises_and_falls_to_zero(whole, tmp_path):
    factors = [SCHEDULE.factor(step) for step in range(13)]
    assert factors[:4] == [1 / 3, 2 / 3, 1, 1]
    assert all(one > other for one, other in pairwise(factors[3:]))
    assert factors[12] == 0
    assert Schedule(steps=2, learning_rate=1, warmup=0).factor(0) == 1
    assert [row[1] for row in log(whole[0])[1:]] == [f"{0.05 * factors[step]:.3g}" for step in (4, 9, 11)]


def test_the_learning_rate_of_detectron2():
    """Its WarmupPolyLR, for the 120,000 steps of OVSeg with a warm-up of 1,500 from a millionth."""
    schedule = Schedule(steps=120_000, learning_rate=2e-4, warmup=1500, decay="poly")
    factors = [schedule.factor(step) for step in (0, 750, 1500, 60_000, 120_000)]
    halfway = (1e-6 * 0.5 + 0.5) * (1 - 750 / 120_000) ** 0.9
    assert factors == pytest.approx([1e-6, halfway, 0.9875**0.9, 0.5**0.9, 0])
    assert Schedule(steps=4, learning_rate=1, warmup=0, decay="poly").factor(0) == 1


def test_the_learning_rate_of_mmsegmentation():
    """Its poly policy, for the 20,000 steps of TagCLIP: a factor of warm-up on what falls to a rate above zero."""
    schedule = Schedule(steps=20_000, learning_rate=2e-4, warmup=1500, decay="poly", lowest=1e-6)
    rates = [2e-4 * schedule.factor(step) for step in (0, 750, 10_000, 20_000)]

    def fallen(step: int) -> float:
        return (2e-4 - 1e-6) * (1 - step / 20_000) ** 0.9 + 1e-6

    halfway = fallen(750) * (1 - (1 - 750 / 1500) * (1 - 1e-6))
    assert rates == pytest.approx([2e-4 * 1e-6, halfway, fallen(10_000), 1e-6])
    cosine = Schedule(steps=10, learning_rate=1.0, warmup=2, lowest=0.1)
    assert [cosine.factor(step) for step in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1, 1, 0.55, 0.1])


def test_a_shorter_schedule_warms_up_for_a_tenth_of_it_at_most():
    schedule = Schedule(steps=20_000, learning_rate=2e-4, warmup=1500)
    assert [schedule.shortened(steps).warmup for steps in (40, 10_000, 40_000)] == [4, 1000, 1500]
    assert schedule.shortened(40).steps == 40


def test_the_optimiser_is_as_the_schedule_says(tmp_path):
    train(tmp_path, replace(SCHEDULE, betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.2), stop_after=1)
    for group in state(tmp_path)["optimizer"]["param_groups"]:
        assert (group["betas"], group["eps"]) == ((0.9, 0.98), 1e-6)
        assert group["weight_decay"] in (0.0, 0.2)


def test_names_choose_rates_and_decay(tmp_path):
    net = nn.ModuleDict({"net": Net(), "network": nn.Linear(2, 2)})
    net.forward = lambda batch: net["net"](batch) | {"none": 0 * net["network"](batch["labels"][0]).sum()}
    rates = {"net.head": 0.5, "net": 0.1}
    train(tmp_path, net=net, rates=rates, decays=lambda name, _: name.endswith("head.bias"), stop_after=3)
    groups = state(tmp_path)["optimizer"]["param_groups"]
    found = {(round(group["lr"], 6), group["weight_decay"], len(group["params"])) for group in groups}
    assert found == {(0.005, 0.0, 2), (0.025, 0.0, 1), (0.025, 0.05, 1), (0.05, 0.0, 2)}


def test_parts_have_their_own_rates_and_vectors_do_not_decay(tmp_path):
    train(tmp_path, stop_after=3, rates={"head": 0.5, "tower": 0.1})
    groups = state(tmp_path)["optimizer"]["param_groups"]
    found = {(group["lr"], group["weight_decay"], len(group["params"])) for group in groups}
    assert found == {(0.05, 0.0, 2), (0.025, 0.05, 1), (0.025, 0.0, 1)}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"steps": 0}, {}, r"steps is 0, but must be 1 or more\."),
        ({"save_every": 0}, {}, r"save_every is 0"),
        ({"decay": "linear"}, {}, r"decay is 'linear', but must be one of cosine, poly\."),
        ({"betas": (0.9, 1.0)}, {}, r"cannot be used: Invalid beta parameter at index 1: 1\.0"),
        ({}, {"rates": {"hea": 1.0}}, r"cannot be used: no parameters are named hea$"),
        ({"seed": -1}, {}, r"seed is -1, but must be 0 or more\."),
        ({"averaging": 2.0}, {}, r"cannot be used: Invalid decay value 2\.0"),
        ({"learning_rate": -1.0}, {}, r"cannot be used: Invalid learning rate: -1\.0"),
        ({"precision": "half"}, {}, r"cannot be used: Unknown mixed_precision mode: half"),
        ({}, {"rates": {"nose": 1.0}}, r"cannot be used: no parameters are named nose"),
    ],
)
def test_unusable_settings_are_errors_of_one_line(tmp_path, changes, options, message):
    with pytest.raises(TrainingError, match=message) as raised:
        train(tmp_path, replace(SCHEDULE, **changes), **options)
    assert "\n" not in str(raised.value)


def test_half_precision_repeats_and_leaves_the_module_as_it_was(tmp_path):
    schedule, seen = replace(SCHEDULE, precision="bf16"), []

    class Watched(Net):
        def forward(self, batch: dict) -> dict:
            seen.append((self.tower(batch["photos"]).dtype, self.head.weight.dtype))
            return super().forward(batch)

    net = train(tmp_path / "whole", schedule, net=Watched())
    train(tmp_path / "stopped", schedule, stop_after=7)
    train(tmp_path / "stopped", schedule, net=strange())
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    net(draw(torch.Generator()))
    assert seen[-1] == (torch.float32, torch.float32)


def test_the_scale_of_gradients_goes_on(tmp_path, monkeypatch):
    class Scaled(Accelerator):
        """Scales as it does for fp16, which needs a GPU."""

        def __init__(self, mixed_precision: str) -> None:
            super().__init__(mixed_precision=mixed_precision)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=5)

    monkeypatch.setattr(loop, "Accelerator", Scaled)
    train(tmp_path / "whole")
    train(tmp_path / "stopped", stop_after=7)
    train(tmp_path / "stopped", net=strange())
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert state(tmp_path / "stopped")["scaler"]["scale"] == 16
    assert state(tmp_path / "stopped")["scaler"]["_growth_tracker"] == 2


def train_until_killed(folder: Path) -> None:
    """Die while the second state is written."""
    save = torch.save

    def dying(content: dict, file) -> None:
        if content["step"] > 4:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(content, file)

    torch.save = dying
    train(folder)


def train_in_a_group(folder: Path) -> None:
    """Train without and with a stop; write what this process drew, and the weights it ended with."""
    drawn = []

    def watched(generator: torch.Generator) -> dict:
        batch = draw(generator)
        drawn.append(batch["photos"][0, 0].item())
        return batch

    net = train(folder / "whole", draw=watched)
    train(folder / "stopped", stop_after=5)
    train(folder / "stopped", net=strange())
    train(folder / "ranked", net=Ranked())
    torch.save((drawn, dict(net.named_parameters())), folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    train_in_a_group(Path(sys.argv[1]))
