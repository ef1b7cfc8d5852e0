"""What the commands of all pipelines share: process set-up, exit status, arguments and printed records."""

import argparse
import gc
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from eval import datasets
from ovseg_demo.errors import exit_status
from ovseg_demo.runtime import memory
from ovseg_demo.weights.catalogue import sha256_of
from train.common.run_folder import TrainingError

_PATIENCE = timedelta(days=1)
"""How long a process waits for the slowest, for example while the main one computes all features."""


def run_command(work: Callable[[PartialState], int], resume_point: str = "state") -> int:
    """The exit status of `work`, run as one of the launcher's processes.

    Args:
        work: runs the command with the state of the processes, and returns its exit status.
        resume_point: a word for what an interrupted run resumes from, for the message to the user.
    """
    memory.configure_allocator()
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    try:
        return exit_status(
            lambda: work(processes), f"Interrupted; the same command goes on from the last {resume_point}."
        )
    finally:
        gc.collect()  # a parallel module that outlives the group may wait for it for ever
        processes.destroy_process_group()


def device_of(state: PartialState) -> torch.device:
    """The device of this process; `accelerate` declares it as optional because it is unset before the processes start.

    Args:
        state: the state of the launcher's processes, as `run_command` passes it.
    """
    assert state.device is not None
    return state.device


def recipe_argument_parser(package: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options of every pipeline that learns from sets of photos by a recipe.

    Args:
        package: dotted name of the package that runs as the command.
        description: first line of the help text.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the recipe's; shortens any warm-up too")
    parser.add_argument("--batch", type=int, metavar="N", help="photos a step over all processes; the recipe's if left")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read photos, for each one")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="default: no (float32)")
    return parser


def labelled_argument_parser(package: str, description: str) -> argparse.ArgumentParser:
    """As `recipe_argument_parser`, for sets of labelled photos."""
    parser = recipe_argument_parser(package, description)
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        choices=list(datasets.TRAINING),
        help="a training split under DIR, instead of its folders; may be given more than once",
    )
    return parser


def per_process_batch(batch: int, processes: int) -> int:
    """The number of photos that each process draws in a step.

    Args:
        batch: photos of a step over all processes.
        processes: the number of processes.

    Raises:
        TrainingError: when `batch` is not a multiple of `processes`.
    """
    if batch % processes:
        raise TrainingError(f"A batch of {batch} cannot be shared by {processes} processes.")
    return batch // processes


def print_file_record(path: Path) -> None:
    """Print name, sha256 and size in bytes of a file that a run has written, as JSON in one line."""
    print(json.dumps({"file": path.name, "sha256": sha256_of(path), "size": path.stat().st_size}))
