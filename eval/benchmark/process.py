"""Processes of benchmarks: a fresh process for each measurement, the memory of processes, and the running demo."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import httpx
from PIL import Image

from eval.benchmark.browser_client import BrowserClient
from ovseg_demo.errors import UserError
from ovseg_demo.methods import registry

WORDS = "cat, person, tree, car, table"
"""The words that a visitor of the demo types."""

_ROOT = Path(__file__).resolve().parents[2]
_FAREWELL_SECONDS = 10

Result = TypeVar("Result")


class BenchmarkError(UserError):
    """A measurement could not be made."""


def alone(work: Callable[..., Result], *arguments: Any, environment: Mapping[str, str] | None = None) -> Result:
    """The result of `work(*arguments)` in a fresh process, which inherits no memory and no warm cache.

    The process ends with this call, even if the call is interrupted.

    Args:
        work: a function of a module; an exception that it raises is raised here.
        arguments: its arguments; they and the result must be picklable.
        environment: additional environment variables of the process.

    Raises:
        BenchmarkError: when the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, work, arguments), daemon=True)
    try:
        with _exported(environment or {}):
            process.start()
        sender.close()
        result, error = receiver.recv()
        process.join(_FAREWELL_SECONDS)  # terminated at once, it would leave semaphores behind
    except EOFError:
        process.join()
        raise BenchmarkError(
            f"The measuring process ended early (exit status {process.exitcode}); there may be too little memory."
        ) from None
    finally:
        if process.pid:
            process.terminate()
            process.join()
    if error:
        raise error
    return result


def reset_peak() -> None:
    """Start a new measurement of the peak memory of this process."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The peak resident memory of this process since `reset_peak`, in megabytes."""
    return status("self", "VmHWM")


def status(process: int | str, field: str) -> float:
    """A memory field of /proc/PROCESS/status in megabytes.

    Args:
        process: id of the process, or "self".
        field: name of the field, for example "VmRSS".

    Raises:
        KeyError: when there is no such field.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise KeyError(field)


@contextmanager
def server() -> Iterator[tuple[str, subprocess.Popen]]:
    """The demo in a process of its own, with its model loaded: the address of the page, and the process.

    Raises:
        BenchmarkError: when the demo does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PORT": str(port), "HOST": "127.0.0.1"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=_ROOT, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            Image.new("RGB", (64, 64)).save(file.name)
            BrowserClient(url).segment(Path(file.name), WORDS, registry.DEFAULT)  # waits until the model is loaded
        yield url, process
    finally:
        process.terminate()
        process.wait()


def _await(url: str, process: subprocess.Popen) -> None:
    for _ in range(120):
        if process.poll() is not None:
            break
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise BenchmarkError("The demo did not start; run `python app.py` to see why.")


def _answer(sender: Connection, work: Callable, arguments: tuple) -> None:
    """Send (result, None), or (None, exception) when `work` raises an exception."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; ours is ended by `alone`
    try:
        sender.send((work(*arguments), None))
    except Exception as error:
        error.add_note(traceback.format_exc())  # pickling drops the traceback
        sender.send((None, error))


@contextmanager
def _exported(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started within the context."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
