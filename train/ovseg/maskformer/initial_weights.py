"""Weights to begin with: of a whole MaskFormer, or of a backbone as it was published.

OVSeg began with Detectron2's DeepLab/R-103.pkl and with Swin's swin_base_patch4_window12_384_22k.pth. A MaskFormer may
be one that this package has trained, or a released OVSeg file.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.checkpoint import load_backbone
from ovseg_demo.proposals.maskformer.model import MaskFormer
from ovseg_demo.weights import loading, reading

_HEAD = "sem_seg_head."
_PARTS = ("backbone.", _HEAD)

_RENAMED = {"numpy.core.multiarray": "numpy._core.multiarray"}
"""Modules of numpy 1 by which files were pickled."""

_ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
"""What arrays are made of when they are unpickled."""


def initialise(model: MaskFormer, path: Path) -> None:
    """Copy the weights of a file into a model: of the backbone alone where the file has no more.

    Raises CheckpointError when the file cannot be read, or tensors are missing, unexpected or misshapen.
    """
    content = _pickled(path) if path.suffix == ".pkl" else reading.read_weights(path)
    state = content.get("model", content)
    if isinstance(state, Mapping) and any(name.startswith(_HEAD) for name in state):
        state = {name: value for name, value in state.items() if name.startswith(_PARTS)}
        loading.load_strict(model, state, path.name)
    else:
        load_backbone(model, content, path.name)


def _pickled(path: Path) -> dict[str, Any]:
    """A pickled table of numpy arrays, as Detectron2 publishes weights; nothing else is let out of the file."""
    try:
        with path.open("rb") as file:
            content = _Arrays(file, encoding="latin1").load()
        arrays = content.get("model", content)
        return {name: torch.from_numpy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    except Exception as error:  # unpickling raises nearly anything on broken files
        raise CheckpointError(
            f"{path.name} cannot be read as weights: it is damaged, or holds more than a table of arrays."
        ) from error


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = _RENAMED.get(module, module)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return super().find_class(module, name)
