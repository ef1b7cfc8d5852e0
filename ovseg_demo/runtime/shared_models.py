"""The models of one device, loaded once and shared by all methods that use them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ovseg_demo.runtime.model_store import ModelStore
from ovseg_demo.runtime.stages import Listener, ignore_progress

Model = TypeVar("Model")


@dataclass(frozen=True)
class SharedModels:
    """What a method takes its models from while it is built.

    Attributes:
        device: where the models run, as torch names it.
        store: holds the models of all devices.
        listener: is told of the loading; what it raises ends the wait.
    """

    device: str
    store: ModelStore
    listener: Listener = ignore_progress

    def get(self, kind: str, weights: str, load: Callable[[], Model]) -> Model:
        """A model, which is loaded if it is not held.

        Args:
            kind: what is made of the weights, so that no two kinds share a model by accident.
            weights: names the weights.
            load: makes the model; called at most once for as long as the model is held.

        Raises whatever `load` raises.
        """
        return self.store.get((kind, weights, self.device), load, self.listener)
