"""The training loop that every pipeline shares: accelerate, averaged weights, exact resumption, a log, progress.

A pipeline brings a module whose forward turns a batch into named losses, and a function that draws batches. What is
random in a step is a function of the seed, the step and the process alone. A run that was killed therefore goes on as
if nothing had happened: on the same machine its weights are equal to the bit to those of a run that was not killed (on
a GPU as far as the kernels are deterministic).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from train.common.run_folder import Log, RunFolder, TrainingError
from train.common.sampling import Batch, BatchSampler, StepGenerator, draw_batches, step_seeds
from train.common.schedule import Decays, Schedule, decay_matrices, parameter_groups

Training = TypeVar("Training", bound=nn.Module)

__all__ = ["Batch", "BatchSampler", "Schedule", "StepGenerator", "fit"]


def fit(
    module: Training,
    draw: BatchSampler,
    schedule: Schedule,
    folder: RunFolder,
    rates: Mapping[str, float] | None = None,
    decays: Decays = decay_matrices,
    workers: int = 0,
    title: str = "training",
    stop_after: int | None = None,
) -> Training:
    """Train `module`, from the folder's last state if it has one; returns it with the averaged weights, if averaged.

    Args:
        module: `module(batch)` gives named losses, scalars that are summed, the same names at every step. Parameters
            that do not require a gradient stay as they are and are not stored in the states.
        draw: makes a batch; each process draws its own. UserErrors that it raises end the run.
        schedule: how long and how fast to train, how often to save and to log, and the seed.
        folder: states go to its "state.pt", numbers to its "log.csv".
        rates: factors on the learning rate by prefix of a parameter's name, up to any dot ("model.tower": 0.2).
        decays: which parameters take part in weight decay.
        workers: how many processes beside each training process draw ahead; 0 draws in turn. The batches are the same.
        title: what the progress bar says.
        stop_after: end after this many steps although more are scheduled, with the state saved.

    Raises:
        TrainingError: when a setting cannot be used, the folder cannot be written, its state does not fit, or a loss
            or the gradient is no finite number.
    """
    trained = [value for value in module.parameters() if value.requires_grad]
    try:
        accelerator = Accelerator(mixed_precision=schedule.precision)
        optimizer = torch.optim.AdamW(
            parameter_groups(module, schedule, rates or {}, decays),
            schedule.learning_rate,
            betas=schedule.betas,
            eps=schedule.epsilon,
            weight_decay=schedule.weight_decay,
        )
        average = get_ema_multi_avg_fn(schedule.averaging)
    except ValueError as error:
        raise TrainingError(f"These settings cannot be used: {error}") from error
    model, optimizer = accelerator.prepare(module, optimizer)
    log = Log(folder)
    parts = {"module": _TrainedState(module), "optimizer": optimizer, "log": log}
    if schedule.averaging:
        averaged = nn.ParameterList([value.detach().clone() for value in trained]).requires_grad_(False)
        parts["averaged"] = averaged
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    start = _restore(folder.path / "state.pt", parts, accelerator)
    last = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    main = accelerator.is_main_process
    if main:
        log.cut(start)
    model.train()
    batches = draw_batches(draw, schedule.seed, range(start, last), accelerator, workers)
    with tqdm(total=schedule.steps, initial=start, desc=title, unit="step", disable=not main) as bar:
        for step, batch in zip(range(start, last), batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * schedule.factor(step)
            set_seed(step_seeds(schedule.seed, step, accelerator.process_index)[1])  # for random layers such as dropout
            losses = model(send_to_device(batch, accelerator.device))
            values = torch.stack(list(losses.values()))
            optimizer.zero_grad()
            accelerator.backward(values.sum())
            norm = accelerator.clip_grad_norm_(trained, math.inf if schedule.clip is None else schedule.clip)
            means = dict(
                zip(losses, torch.as_tensor(accelerator.reduce(values.detach(), "mean")).tolist(), strict=True)
            )
            assert norm is not None  # None only for models that accelerate shards
            # The scaler of fp16 skips a step whose gradient overflows, and tries a smaller scale.
            _check_finite(means if accelerator.scaler else means | {"gradient": norm.item()}, step + 1)
            optimizer.step()
            if schedule.averaging:
                average(list(averaged), tuple(trained), None)
            log.add(means)
            done = step + 1
            if main and (done % schedule.log_every == 0 or done == schedule.steps):
                loss = log.write(done, schedule.learning_rate * schedule.factor(step))
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            if main and (done % schedule.save_every == 0 or done == last):
                _save(folder, done, parts, accelerator)
            bar.update()
    accelerator.wait_for_everyone()
    if schedule.averaging:
        nn.ParameterList(trained).load_state_dict(averaged.state_dict())
    return accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()


class _TrainedState:
    """The state of a module without its frozen parameters, which training leaves as they are."""

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


def _check_finite(numbers: Mapping[str, float], step: int) -> None:
    """Raise TrainingError before a loss or gradient that is not finite spoils the weights and, with them, the state."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise TrainingError(f"{name} is {value} at step {step}; a lower learning rate may help.")


def _save(folder: RunFolder, step: int, parts: Mapping[str, Any], accelerator: Accelerator) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"step": step, "processes": accelerator.num_processes}
    folder.replace("state.pt", lambda file: torch.save(state, file))


def _restore(path: Path, parts: Mapping[str, Any], accelerator: Accelerator) -> int:
    """Load the last state, if there is one, in all processes. Returns the number of steps that it has done."""
    with _state_errors(path):
        exists = accelerator.is_main_process and path.exists()
        state = torch.load(path, map_location="cpu", weights_only=True) if exists else None
    [state] = broadcast_object_list([state])  # other hosts need not see the folder
    if state is None:
        return 0
    with _state_errors(path):
        step, processes = state["step"], state["processes"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    if processes != accelerator.num_processes:
        raise TrainingError(f"{path} is of a run in {processes} processes, not {accelerator.num_processes}.")
    return step


@contextmanager
def _state_errors(path: Path) -> Iterator[None]:
    """Errors in reading the state become a TrainingError that says what to do."""
    try:
        yield
    except Exception as error:  # torch raises nearly anything on broken files
        raise TrainingError(f"{path} cannot be used ({type(error).__name__}); delete it to begin again.") from error
