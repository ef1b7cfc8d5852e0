"""Work in other processes: in one that may die of it, or in two that train together.

The processes are forked from one that has imported the libraries, so that a test pays for its own work alone.
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

_PRELOADED = [
    *("torch.nn.parallel.distributed", "spacy", "webdataset"),
    "tests.helpers.pairs_data",
    *(
        f"train.{pipeline}.__main__"
        for pipeline in ("ovseg.clip", "ovseg.maskformer", "ovseg.pairs", "sed", "segclip", "tagclip")
    ),
]
_SECONDS = 240


def kill_during(work: Callable, *arguments) -> None:
    """Run `work(*arguments)`, a function of a module, in a process that must kill itself on the way."""
    [(status, printed)] = _run([{}], work, arguments)
    assert status == -signal.SIGKILL, printed


def run_in_two_processes(work: Callable, *arguments) -> list[str]:
    """Run `work(*arguments)`, a function of a module, in two processes of one group, as torchrun starts them.

    Both must end well: `work` returns None or the exit status 0. Returns the lines that the first process prints.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    ended = _run([group | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"], work, arguments)
    for status, printed in ended:
        assert status == 0, printed
    return ended[0][1].splitlines()


def _run(environments: list[Mapping[str, str]], work: Callable, arguments: tuple) -> list[tuple[int | None, str]]:
    """Exit status and output of a process for each of the environments, which run side by side."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(number)) for number in range(len(environments))]
        processes = [
            context.Process(target=_work, args=(environment, output, work, arguments))
            for environment, output in zip(environments, outputs, strict=True)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(_SECONDS)
            process.kill()  # nothing where it has ended
            process.join()
        return [(process.exitcode, output.read_text()) for process, output in zip(processes, outputs, strict=True)]


def _work(environment: Mapping[str, str], output: Path, work: Callable, arguments: tuple) -> None:
    os.environ.update(environment)
    with output.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            status = work(*arguments)
        except BaseException:
            traceback.print_exc()
            status = 1
    sys.exit(status or 0)
