"""Bytes of models: how many a model takes, how many the machine has, how many loaded models may take together."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from ovseg_demo.errors import UserError

LIMIT_VARIABLE = "OVSEG_MODEL_MB"
"""The environment variable that sets how many megabytes (of 10**6 bytes) loaded models may take."""

_MODELS_SHARE = 0.5
"""Of the memory; the other half is for photos, results, and the model that is being loaded."""

_UNKNOWN_MACHINE_BYTES = 8 * 2**30
"""Taken for the memory of a machine that does not tell it (Windows has no sysconf)."""

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells a container's memory: control groups of version 2, and of version 1."""

_WITHOUT_TENSORS = (str, bytes, int, float, type, ModuleType)


def tensor_bytes(model: object) -> dict[tuple[torch.device, int], int]:
    """The bytes of every tensor storage that a model holds, by device and address.

    The tensors are the parameters and buffers of modules, and plain tensors, that the model holds in attributes,
    mappings, sequences and sets at any depth. Tensors that share a storage are counted once. Tensors on the
    device "meta" take no memory and are left out, and so is what only a function's closure holds.

    Args:
        model: any object: an nn.Module, a method made of several, a dictionary of models.

    Example:
        >>> from torch import nn
        >>> layer = nn.Linear(10, 10, bias=False)
        >>> sum(tensor_bytes({"first": layer, "second": layer}).values())
        400
    """
    storages: dict[tuple[torch.device, int], int] = {}
    seen: dict[int, object] = {}  # with the objects themselves, so that no new object gets the identity of a seen one
    waiting = [model]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _WITHOUT_TENSORS):
            continue
        seen[id(item)] = item
        if isinstance(item, Tensor) and item.device.type != "meta":
            storage = item.untyped_storage()
            storages[item.device, storage.data_ptr()] = storage.nbytes()
        waiting += _held_by(item)
    return storages


def _held_by(item: object) -> Iterable[object]:
    """The objects that an object refers to by attribute, key or position."""
    held = list(getattr(item, "__dict__", {}).values())
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        held += [getattr(item, name) for name in names if hasattr(item, name)]
    if isinstance(item, Mapping):
        held += item.values()
    elif isinstance(item, list | tuple | set | frozenset):
        held += item
    return held


def default_limit_bytes(device: str = "cpu") -> int:
    """How many bytes loaded models may take together.

    The environment variable OVSEG_MODEL_MB states the limit in megabytes. Without it, the limit is half of the least of
    these: the machine's memory, the container's memory, and, for a CUDA device, the device's memory.

    Args:
        device: where the models are, as torch names it.

    Raises:
        UserError: OVSEG_MODEL_MB is no positive number.
    """
    if stated := os.environ.get(LIMIT_VARIABLE):
        return _stated_bytes(stated)
    memory = machine_bytes()
    if torch.device(device).type == "cuda":
        memory = min(memory, torch.cuda.get_device_properties(device).total_memory)
    return int(_MODELS_SHARE * memory)


def machine_bytes() -> int:
    """The memory of this machine, or of the container that this process runs in where that is less, in bytes."""
    return min([_physical_bytes(), *_container_bytes()])


def _stated_bytes(megabytes: str) -> int:
    try:
        value = int(float(megabytes) * 10**6)
    except (ValueError, OverflowError):  # no number, or an infinite one
        value = 0
    if value <= 0:
        raise UserError(
            f"{LIMIT_VARIABLE} is '{megabytes}'; set it to the megabytes that loaded models may take, for example 4000."
        )
    return value


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MACHINE_BYTES


def _container_bytes() -> list[int]:
    """The memory limits of the container, none outside of one.

    Version 1 of the control groups states "no limit" as a number larger than every machine's memory.
    """
    limits = []
    for path in map(Path, _CONTAINER_LIMITS):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such control group, or "max", its word for "no limit"
            continue
    return limits
