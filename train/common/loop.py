"""The training loop that every pipeline shares: accelerate, averaged weights, exact resumption, a log, progress.

A pipeline brings a module whose forward turns a batch into named losses, and a function that draws batches. What is
random in a step is a function of the seed, the step and the process alone. A run that was killed therefore goes on as
if nothing had happened: on the same machine its weights are equal to the bit to those of a run that was not (on a GPU
as far as the kernels repeat themselves).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from train.common.folder import Log, RunFolder, TrainingError

Batch = Mapping[str, Any]
Draw = Callable[[torch.Generator], Batch]
"""Draws the batch of a step. All its randomness comes from the generator."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    The learning rate rises linearly over `warmup` steps and falls to zero along a half cosine.
    """

    steps: int = field(metadata={"help": "optimiser steps"})
    learning_rate: float = field(metadata={"help": "highest learning rate"})
    warmup: int = field(default=50, metadata={"help": "steps until the learning rate is highest"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on matrices and kernels"})
    clip: float = field(default=1.0, metadata={"help": "largest norm of the gradient"})
    averaging: float = field(default=0.99, metadata={"help": "decay of the averaged weights, which are kept"})
    precision: str = field(default="no", metadata={"help": "no, bf16 or fp16: accelerate's mixed precision"})
    save_every: int = field(default=200, metadata={"help": "steps between the states that a run can go on from"})
    log_every: int = field(default=20, metadata={"help": "steps between the lines of log.csv"})
    seed: int = field(default=0, metadata={"help": "of everything random"})

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "warmup": 0, "save_every": 1, "log_every": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must be {least} or more.")

    def factor(self, step: int) -> float:
        """The share of the highest learning rate at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * min(1, (step - self.warmup) / max(1, self.steps - self.warmup))))


def fit(
    module: nn.Module,
    draw: Draw,
    schedule: Schedule,
    folder: RunFolder,
    rates: Mapping[str, float] | None = None,
    title: str = "training",
    stop_after: int | None = None,
) -> nn.Module:
    """Train `module`, from the folder's last state if it has one; returns it with the averaged weights.

    Args:
        module: `module(batch)` gives named losses, scalars that are summed, the same names at every step. Parameters
            that do not require a gradient stay as they are and are not stored in the states.
        draw: makes a batch; each process draws its own.
        schedule: see there.
        folder: states go to its "state.pt", numbers to its "log.csv".
        rates: factors on the learning rate by the parameter's first name ("tower": 0.2).
        title: what the progress bar says.
        stop_after: end after this many steps although more are scheduled, with the state saved.

    Raises:
        TrainingError: when a setting cannot be used, the folder cannot be written, its state does not fit, or a loss
            or the gradient is no finite number.
    """
    trained = [value for value in module.parameters() if value.requires_grad]
    try:
        accelerator = Accelerator(mixed_precision=schedule.precision)
        groups = _groups(module, schedule, rates or {})
        optimizer = torch.optim.AdamW(groups, schedule.learning_rate, weight_decay=schedule.weight_decay)
        average = get_ema_multi_avg_fn(schedule.averaging)
    except ValueError as error:
        raise TrainingError(f"These settings cannot be used: {error}") from error
    model, optimizer = accelerator.prepare(module, optimizer)
    averaged = nn.ParameterList([value.detach().clone() for value in trained]).requires_grad_(False)
    log = Log(folder)
    parts = {"module": _Trained(module), "averaged": averaged, "optimizer": optimizer, "log": log}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    start = _restore(folder.path / "state.pt", parts, accelerator)
    last = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    main = accelerator.is_main_process
    if main:
        log.cut(start)
    model.train()
    with tqdm(total=schedule.steps, initial=start, desc=title, unit="step", disable=not main) as bar:
        for step in range(start, last):
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * schedule.factor(step)
            generator = _seeded(schedule.seed, step, accelerator.process_index)
            losses = model(send_to_device(draw(generator), accelerator.device))
            values = torch.stack(list(losses.values()))
            optimizer.zero_grad()
            accelerator.backward(values.sum())
            norm = accelerator.clip_grad_norm_(trained, schedule.clip)
            means = dict(zip(losses, accelerator.reduce(values.detach()).tolist(), strict=True))
            # The scaler of fp16 skips a step whose gradient overflows, and tries a smaller scale.
            _check(means if accelerator.scaler else means | {"gradient": norm.item()}, step + 1)
            optimizer.step()
            average(list(averaged), trained, None)
            log.add(means)
            done = step + 1
            if main and (done % schedule.log_every == 0 or done == schedule.steps):
                loss = log.write(done, schedule.learning_rate * schedule.factor(step))
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            if main and (done % schedule.save_every == 0 or done == last):
                _save(folder, done, parts, accelerator)
            bar.update()
    accelerator.wait_for_everyone()
    nn.ParameterList(trained).load_state_dict(averaged.state_dict())
    return accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()


class _Trained:
    """The state of a module less what training leaves as it is: frozen parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        named = module.named_parameters(remove_duplicate=False)
        self._frozen = {name for name, value in named if not value.requires_grad}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._module.state_dict().items() if name not in self._frozen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        missing, unexpected = self._module.load_state_dict(state, strict=False)
        if unexpected or set(missing) != self._frozen:
            raise RuntimeError("other parameters")


def _groups(module: nn.Module, schedule: Schedule, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups: decay for matrices and kernels only, and the highest learning rate of each part."""
    unknown = rates.keys() - {name.partition(".")[0] for name, _ in module.named_parameters()}
    if unknown:
        raise ValueError(f"no parameters are named {', '.join(sorted(unknown))}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in module.named_parameters():
        if value.requires_grad:
            rate = schedule.learning_rate * rates.get(name.partition(".")[0], 1.0)
            groups.setdefault((rate, schedule.weight_decay if value.ndim > 1 else 0.0), []).append(value)
    return [
        {"params": values, "lr": rate, "highest": rate, "weight_decay": decay}
        for (rate, decay), values in groups.items()
    ]


def _seeded(seed: int, step: int, process: int) -> torch.Generator:
    """Randomness for the batch of one step in one process; layers that draw (dropout) are seeded apart from it."""
    batch, layers = np.random.SeedSequence((seed, step, process)).generate_state(2).tolist()
    set_seed(layers)
    return torch.Generator().manual_seed(batch)


def _check(numbers: Mapping[str, float], step: int) -> None:
    """Raise before a number that is none spoils the weights and, with them, the last state."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise TrainingError(f"{name} is {value} at step {step}; a lower learning rate may help.")


def _save(folder: RunFolder, step: int, parts: Mapping[str, Any], accelerator: Accelerator) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"step": step, "processes": accelerator.num_processes}
    folder.replace("state.pt", lambda file: torch.save(state, file))


def _restore(path: Path, parts: Mapping[str, Any], accelerator: Accelerator) -> int:
    """Load the last state, if there is one, in all processes; how many steps it has behind it."""
    with _usable(path):
        exists = accelerator.is_main_process and path.exists()
        state = torch.load(path, map_location="cpu", weights_only=True) if exists else None
    [state] = broadcast_object_list([state])  # other hosts need not see the folder
    if state is None:
        return 0
    with _usable(path):
        step, processes = state["step"], state["processes"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    if processes != accelerator.num_processes:
        raise TrainingError(f"{path} is of a run in {processes} processes, not {accelerator.num_processes}.")
    return step


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises nearly anything on broken files
        raise TrainingError(f"{path} cannot be used ({type(error).__name__}); delete it to begin again.") from error
