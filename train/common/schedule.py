"""Learning rate schedule, weight decay and parameter groups of AdamW."""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from train.common.run_folder import TrainingError
from train.common.settings import check_at_least

Decays = Callable[[str, nn.Parameter], bool]
"""Tells of a parameter, given with its dotted name, whether it takes part in weight decay."""


def _cosine(step: int, warmup: int, steps: int) -> tuple[float, float]:
    warm = (step + 1) / warmup if step < warmup else 1.0
    return warm, 0.5 * (1 + math.cos(math.pi * min(1, max(0, step - warmup) / max(1, steps - warmup))))


def _poly(step: int, warmup: int, steps: int) -> tuple[float, float]:
    """Detectron2's WarmupPolyLR with power 0.9 and warm-up from a millionth, which is mmsegmentation's too."""
    warm = 1e-6 + (1 - 1e-6) * step / warmup if step < warmup else 1.0
    return warm, max(0, 1 - step / steps) ** 0.9


_SHAPES = {"cosine": _cosine, "poly": _poly}
"""For each decay, a function that gives two factors at a step: the warm-up, up to 1, and the fall from 1 to 0."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn; the metadata of each field says what it is.

    The learning rate rises linearly over `warmup` steps. With decay "cosine" it then falls to `lowest` along a half
    cosine; with "poly" it falls as (1 - step / steps)^0.9 from the first step on, the warm-up being a factor on that.
    """

    steps: int = field(metadata={"help": "optimiser steps"})
    learning_rate: float = field(metadata={"help": "highest learning rate"})
    warmup: int = field(default=50, metadata={"help": "steps until the learning rate is highest"})
    decay: str = field(default="cosine", metadata={"help": "cosine or poly: how the learning rate falls"})
    lowest: float = field(default=0.0, metadata={"help": "learning rate that it falls to"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on matrices and kernels"})
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata={"help": "AdamW's"})
    epsilon: float = field(default=1e-8, metadata={"help": "AdamW's"})
    clip: float | None = field(default=1.0, metadata={"help": "largest norm of the gradient; None for any"})
    averaging: float = field(
        default=0.99, metadata={"help": "decay of the averaged weights, which are kept; 0 for none"}
    )
    precision: str = field(default="no", metadata={"help": "no, bf16 or fp16: accelerate's mixed precision"})
    save_every: int = field(default=200, metadata={"help": "steps between the states that a run can go on from"})
    log_every: int = field(default=20, metadata={"help": "steps between the lines of log.csv"})
    seed: int = field(default=0, metadata={"help": "of everything random"})

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, save_every=self.save_every, log_every=self.log_every)
        check_at_least(0, warmup=self.warmup, seed=self.seed)
        if self.decay not in _SHAPES:
            raise TrainingError(f"decay is '{self.decay}', but must be one of {', '.join(_SHAPES)}.")

    def factor(self, step: int) -> float:
        """The share of the highest learning rate at a step, counted from 0."""
        warm, fall = _SHAPES[self.decay](step, self.warmup, self.steps)
        floor = self.lowest / self.learning_rate if self.lowest else 0.0
        return warm * (floor + (1 - floor) * fall)

    def shortened(self, steps: int) -> "Schedule":
        """This schedule with another number of steps, of which the warm-up takes a tenth at most."""
        return replace(self, steps=steps, warmup=min(self.warmup, steps // 10))


def decay_matrices(name: str, value: nn.Parameter) -> bool:
    """Whether a parameter is a matrix or a kernel, and not a vector such as gains, biases and scales.

    Args:
        name: dotted name of the parameter, which does not matter.
        value: the parameter.
    """
    return value.ndim > 1


def decay_all_but(names: Set[str]) -> Decays:
    """Weight decay for all parameters except the ones with these dotted names."""
    return lambda name, _: name not in names


def parameters_held_by(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> set[str]:
    """The dotted names of the parameters that submodules of some kinds hold directly, not in submodules of their own.

    Args:
        module: the module that is searched.
        kinds: classes of submodules, for example `nn.LayerNorm`.
    """
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, submodule in module.named_modules()
        if isinstance(submodule, kinds)
        for name, _ in submodule.named_parameters(recurse=False)
    }


def parameter_groups(
    module: nn.Module, schedule: Schedule, rates: Mapping[str, float], decays: Decays
) -> list[dict[str, Any]]:
    """AdamW's groups, with their highest learning rate and weight decay.

    Args:
        module: whose parameters are grouped; those without a gradient are left out.
        schedule: highest learning rate and weight decay.
        rates: factors on the learning rate by prefix of a parameter's name, up to any dot; the first that fits counts.
        decays: which parameters take prefix in weight decay.

    Raises:
        ValueError: when a prefix fits no parameter.
    """
    named = list(module.named_parameters())
    unknown = [prefix for prefix in rates if not any(_within(name, prefix) for name, _ in named)]
    if unknown:
        raise ValueError(f"no parameters are named {', '.join(sorted(unknown))}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in named:
        if value.requires_grad:
            rate = schedule.learning_rate * next((rates[prefix] for prefix in rates if _within(name, prefix)), 1.0)
            groups.setdefault((rate, schedule.weight_decay if decays(name, value) else 0.0), []).append(value)
    return [
        {"params": values, "lr": rate, "highest": rate, "weight_decay": decay}
        for (rate, decay), values in groups.items()
    ]


def _within(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")
