"""State dicts of the catalogue's checkpoints, loaded strictly: every tensor fits a module, or none is copied."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.reading import read_weights

_NAMES_SHOWN = 5


def load_state_dict(checkpoint_id: str) -> dict[str, Tensor]:
    """The verified tensors of a checkpoint, in the precision of the file.

    Raises CheckpointError when the file is missing, fails verification, or cannot be read.
    """
    return read_weights(catalogue.verify(catalogue.get(checkpoint_id)))


def tensor_table(published: Mapping, source: str) -> Mapping[str, Tensor]:
    """The tensors of a file's content, which stand in it or under "model".

    Raises CheckpointError when there are none, or other things among them.
    """
    state = published.get("model", published)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source} holds no weights: expected a table of tensors.")
    return state


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`, every tensor or none.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    check_state_dict(module.state_dict(), state, f"{source} does not fit {type(module).__name__}")
    module.load_state_dict(state)


def check_state_dict(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], complaint: str) -> None:
    """Raises CheckpointError, `complaint` and the names, unless names and shapes are the same."""
    faults = [
        ("missing", sorted(wanted.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - wanted.keys())),
        ("misshapen", sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)),
    ]
    told = [f"{len(names)} {kind} ({_shortened(names)})" for kind, names in faults if names]
    if told:
        raise CheckpointError(f"{complaint}: {'; '.join(told)}.")


def _shortened(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def load_for_inference(module: nn.Module, checkpoint: str | Path) -> nn.Module:
    """`module` ready for inference, in single precision, with the weights of a checkpoint's id or of a file."""
    by_id = isinstance(checkpoint, str)
    state = load_state_dict(checkpoint) if by_id else read_weights(checkpoint)
    single = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    load_strict(module, single, catalogue.get(checkpoint).file if by_id else checkpoint.name)
    return module.eval().requires_grad_(False)
