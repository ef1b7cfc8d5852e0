"""The settings that decide the scores of a run, and the machine that it ran on."""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import ovseg_demo
from eval.datasets.base import Dataset
from eval.protocol import Sweep
from ovseg_demo.methods import registry
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.weights import catalogue

_LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "opencv-python-headless", "pillow")
_CODE = ("ovseg_demo", "eval/datasets", *(f"eval/{name}.py" for name in ("metrics", "boundary", "runner", "journal")))
_IRRELEVANT = {"ui", "render", "__main__.py", "cli.py", "command_line.py", "download.py"}
"""Files and folders that no count depends on; after a change of them finished images stay valid."""


def settings(
    dataset: Dataset, method: str, options: MethodOptions | Sweep, device: str, threads: int, code: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that the counts of an image depend on; runs with equal settings share their finished images.

    The number of images is no setting, so that finished images stay valid when --limit is raised. Of photos and label
    files only the paths count, not the contents: after a change of files another folder must be given.

    Args:
        dataset: the benchmark.
        method: id of the method.
        options: options of the method, of which one may be swept.
        device: "cpu", "cuda" or "cuda:0".
        threads: CPU threads of a process.
        code: files and folders of the project that the counts depend on beside those of `eval.evaluate`.
    """
    return {
        "method": method,
        "options": options.given(),
        "weights": {name: _hash(catalogue.get(name)) for name in registry.get(method).checkpoints},
        "dataset": dataset.name,
        "samples": digest([[s.key, str(s.image.absolute()), str(s.labels.absolute())] for s in dataset]),
        "words": digest([str(dataset.vocabulary), dataset.background, dataset.rivals]),
        "device": device.split(":")[0],
        "threads": threads,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "code": _code((*_CODE, *code)),
    }


def digest(content: Any) -> str:
    """A digest of JSON content, 12 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def environment(device: str, processes: int) -> dict[str, Any]:
    """The machine of a run and its load, on which the measured seconds depend.

    Args:
        device: "cpu", "cuda" or "cuda:0".
        processes: number of processes of the run.
    """
    return {
        "ovseg-demo": ovseg_demo.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "processes": processes,
    }


def _hash(checkpoint: catalogue.Checkpoint) -> str:
    """The catalogued sha256, which loading verifies, or the file's own."""
    return checkpoint.sha256 or catalogue.sha256_of(checkpoint.path)


def _processor() -> str:
    """The model name of the CPU on Linux, otherwise the name of its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _code(places: Sequence[str]) -> str:
    """A digest of every source file in some files and folders of the project, without the irrelevant ones."""
    root = Path(__file__).resolve().parent.parent
    paths = [root / name for name in places]
    sources = {file.relative_to(root) for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}
    return digest(
        [[str(p), (root / p).read_text("utf-8")] for p in sorted(sources) if not _IRRELEVANT.intersection(p.parts)]
    )
