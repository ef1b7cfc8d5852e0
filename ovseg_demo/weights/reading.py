"""A weight file of any usual format -> its tensors, without running code that the file may bring."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ovseg_demo.errors import CheckpointError


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a weight file: tensors by name, or tables of tensors such as {"model": {...}}.

    Reads safetensors and files of torch.save, in the zip format of today (mapped into memory: a tensor takes room when
    it is used) and in the format from before 2020. The suffix of the name does not matter. numpy's numbers, which
    training frameworks save beside the tensors, are read too; whatever else a pickle may ask for is refused.

    Args:
        path: the file.

    Returns:
        The content; the tensors are on the CPU, in the precision of the file.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        content = _reader_of(path)(path)
    except CheckpointError:
        raise
    except PermissionError as error:
        raise CheckpointError(f"{path} may not be read.") from error
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise CheckpointError(
            f"{path.name} cannot be read as weights: it is damaged, or holds more than tensors."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path.name} holds no table of tensors.")
    return dict(content)


def named_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a file's content by name, including the tensors inside of tables.

    The prefix "module." of parallel training is removed. If two tables have a tensor of the same name, one of the two
    is returned: use this to recognise a file, not to load it.

    Args:
        content: as `read_weights` returned it.
    """
    tables = [content, *(value for value in content.values() if isinstance(value, Mapping))]
    named = (item for table in tables for item in table.items())
    return {str(name).removeprefix("module."): value for name, value in named if isinstance(value, Tensor)}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, text by name; empty for a file of another format.

    Args:
        path: a file that `read_weights` reads.
    """
    if _reader_of(path) is not load_file:
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _reader_of(path: Path) -> Callable[[Path], Any]:
    with path.open("rb") as file:
        start = file.read(64)
    if start[8:9] == b"{":  # safetensors: the length of the header in 8 bytes, then the header, which is JSON
        return load_file
    if start.lstrip().startswith(b"<"):
        raise CheckpointError(f"{path.name} is a web page, not weights; the site has sent it in place of the file.")
    return _load_archive if zipfile.is_zipfile(path) else _load_pickle


def _load_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise CheckpointError(
                f"{path.name} is a TorchScript archive, code together with weights, which is not run here; take the "
                "weights alone: clip-vit-b16 and clip-vit-l14 in the list of checkpoints."
            )
    return _load_pickle(path, mmap=True)


def _load_pickle(path: Path, mmap: bool = False) -> Any:
    with torch.serialization.safe_globals(_numpy_numbers()):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _numpy_numbers() -> list[Any]:
    """The classes and functions that a pickled scalar or array of plain numbers needs; arrays of objects need more."""
    functions: set[Any] = {np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    named = [(function, f"{module}.{function.__name__}") for function in functions for module in modules]
    return [np.ndarray, np.dtype, *dtypes, *named]
