"""State dicts of the catalogue's checkpoints, loaded strictly: all tensors fit the module, or none is copied."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.reading import read_weights

Module = TypeVar("Module", bound=nn.Module)

_NAMES_SHOWN = 5
"""Most names that an error lists; of further names it gives the number."""


def load_state_dict(checkpoint_id: str) -> dict[str, Tensor]:
    """The content of a verified checkpoint as `read_weights` returns it, in the precision of the file.

    Args:
        checkpoint_id: its id in the catalogue.

    Raises:
        CheckpointError: the file is missing, fails verification, or cannot be read.
    """
    return read_weights(catalogue.verify(catalogue.get(checkpoint_id)))


def tensor_table(published: Mapping, source: str) -> Mapping[str, Tensor]:
    """The state dict in a file's content: the content itself, or its table "model".

    Args:
        published: as `read_weights` returned it.
        source: names the file in the error.

    Raises:
        CheckpointError: the table is empty, or holds something that is no tensor.
    """
    state = published.get("model", published)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source} holds no weights: expected a table of tensors.")
    return state


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a module, all tensors or none.

    Args:
        module: has exactly the names and shapes of `state`.
        state: tensors by name.
        source: names the file in the error.

    Raises:
        CheckpointError: names the missing, the unexpected and the misshapen tensors.
    """
    check_state_dict(module.state_dict(), state, f"{source} does not fit {type(module).__name__}")
    module.load_state_dict(state)


def check_state_dict(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], complaint: str) -> None:
    """Compare the names and shapes of two state dicts.

    Args:
        wanted: the names and shapes that are needed.
        state: the names and shapes that are there.
        complaint: the beginning of the error's sentence.

    Raises:
        CheckpointError: `complaint`, then the missing, the unexpected and the misshapen tensors.
    """
    faults = [
        ("missing", sorted(wanted.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - wanted.keys())),
        ("misshapen", sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)),
    ]
    descriptions = [f"{len(names)} {kind} ({_shortened(names)})" for kind, names in faults if names]
    if descriptions:
        raise CheckpointError(f"{complaint}: {'; '.join(descriptions)}.")


def _shortened(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def load_for_inference(module: Module, checkpoint: str | Path) -> Module:
    """The module itself, ready for inference: with weights in single precision, evaluation mode, no gradients.

    Args:
        module: any module whose state dict is the checkpoint's.
        checkpoint: an id of the catalogue, or the path of a file.

    Raises:
        CheckpointError: the file is missing, cannot be read, or does not fit the module.
    """
    by_id = isinstance(checkpoint, str)
    state = load_state_dict(checkpoint) if by_id else read_weights(checkpoint)
    single = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    load_strict(module, single, catalogue.get(checkpoint).file if by_id else checkpoint.name)
    return module.eval().requires_grad_(False)
