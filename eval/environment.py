"""What decides a run's numbers, and where it ran."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import ovseg_demo
from eval.datasets.base import Dataset
from ovseg_demo.methods import registry
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.weights import catalogue

_LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "opencv-python-headless", "pillow")
_CODE = ("ovseg_demo", "eval/datasets", *(f"eval/{name}.py" for name in ("metrics", "boundary", "runner", "journal")))
_NO_BEARING = {"ui", "render", "__main__.py", "cli.py", "command_line.py", "download.py"}
"""Parts that no count depends on; changing them costs no finished image."""


def settings(dataset: Dataset, method: str, options: MethodOptions, device: str, threads: int) -> dict[str, Any]:
    """Everything that the counts of an image depend on; runs with equal settings may share their images.

    Not the limit on the number of images: raising it must not throw away those that are finished. Nor the content of
    photos and label files, of which only the paths are looked at: replacing a file asks for another folder.
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
        "code": _code(),
    }


def digest(content: Any) -> str:
    """A short name for JSON content."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def environment(device: str, processes: int) -> dict[str, Any]:
    """Where a run runs: what its seconds depend on."""
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
    """The CPU's model name, as Linux tells it, or whatever Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _code() -> str:
    """Changes with every source file that counts may depend on."""
    root = Path(__file__).resolve().parent.parent
    places = [root / place for place in _CODE]
    sources = {p.relative_to(root) for place in places for p in (place.rglob("*.py") if place.is_dir() else [place])}
    return digest(
        [[str(p), (root / p).read_text("utf-8")] for p in sorted(sources) if not _NO_BEARING.intersection(p.parts)]
    )
