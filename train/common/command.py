"""What the commands of all pipelines do around their work."""

import gc
from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate import PartialState

from ovseg_demo import memory
from ovseg_demo.errors import exit_status

_PATIENCE = timedelta(days=1)
"""How long a process waits for the slowest, for the main one to read all features for one."""


def run(work: Callable[[PartialState], int], kept: str = "state") -> int:
    """The exit status of `work`, run as one of the launcher's processes.

    Args:
        work: gets the state of the processes.
        kept: what an interrupted run goes on from, in a word.
    """
    memory.prepare()
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    try:
        return exit_status(lambda: work(processes), f"Interrupted; the same command goes on from the last {kept}.")
    finally:
        gc.collect()  # a parallel module that outlives the group may wait for it for ever
        processes.destroy_process_group()
