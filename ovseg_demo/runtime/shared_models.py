"""The models of one device, loaded once and shared by all methods that use them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ovseg_demo.runtime.model_store import ModelStore
from ovseg_demo.runtime.stages import Listener, ignore_progress

Model = TypeVar("Model")


@dataclass(frozen=True)
class SharedModels:
    """The loaded models of one device, from which a method takes its models while it is built.

    Attributes:
        device: where the models run, as torch names it.
        store: holds the models of all devices.
        listener: receives the progress of loading; an exception that it raises ends the wait.
    """

    device: str
    store: ModelStore
    listener: Listener = ignore_progress

    def get(self, kind: str, weights: str, load: Callable[[], Model]) -> Model:
        """A model, from the store or loaded now.

        Args:
            kind: the kind of model that is made of the weights; models of different kinds are separate.
            weights: identifies the weights.
            load: makes the model; called at most once for as long as the model is held.

        Raises whatever `load` raises.
        """
        return self.store.get((kind, weights, self.device), load, self.listener)
