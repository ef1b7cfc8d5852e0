"""Routes a request to a method; owns devices, models and caches."""

from dataclasses import replace
from functools import partial

import torch

from ovseg_demo.errors import MethodError
from ovseg_demo.image import Photo
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import Method
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime import memory
from ovseg_demo.runtime.model_memory import default_limit_bytes
from ovseg_demo.runtime.model_store import ModelStore
from ovseg_demo.runtime.shared_models import SharedModels
from ovseg_demo.runtime.stages import Cache, Listener, SerialWorker, Stages, ignore_progress
from ovseg_demo.vocabulary import Vocabulary

CACHE_BYTES = 512 * 2**20
"""About eighty photos, or SED's prompts of 1000 words and two photos; a small host's memory is mostly the models'."""


class Engine:
    """Segments photos; one engine serves every user of a process, from any thread.

    Args:
        device: where the models run, as torch names it; None is "cuda" where there is a GPU, else "cpu".
        cache_bytes: bound of the cached results of stages.
        store: holds the loaded models; None makes one with the default bound, see `ModelStore`.

    Raises MethodError for a device that torch cannot use here.

    Example:
        >>> from ovseg_demo import image, vocabulary
        >>> engine = Engine("cpu")
        >>> result = engine.segment(image.load("photo.jpg"), vocabulary.parse("cat, parakeet"), "mini-dense")
        >>> [found.name for found in result.summary()]
        ['cat', 'parakeet']
    """

    def __init__(
        self, device: str | None = None, cache_bytes: int = CACHE_BYTES, store: ModelStore | None = None
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        memory.configure_allocator()
        check_device(self.device)
        self.cache = Cache(cache_bytes)
        self._worker = SerialWorker()
        self._store = store or ModelStore(default_limit_bytes(self.device))

    def segment(
        self,
        photo: Photo,
        vocabulary: Vocabulary,
        method: str = registry.DEFAULT,
        options: MethodOptions | None = None,
        listener: Listener = ignore_progress,
    ) -> Segmentation:
        """Name every pixel of a photo with a class of a vocabulary.

        Args:
            photo: what is segmented.
            vocabulary: the classes.
            method: the id of a method.
            options: of the method, see `registry.read_options`; None stands for the defaults.
            listener: is told of the progress; what it raises ends the request.

        Returns:
            a result of the size of the photo's pixels.

        Raises MethodError for an unknown or unavailable method and for options of another method, CheckpointError for
        damaged weights, and Cancelled when the listener does.
        """
        spec = registry.available(method)
        options = spec.options() if options is None else options
        if type(options) is not spec.options:
            raise MethodError(f"{type(options).__name__} are no options of {method}; give {spec.options.__name__}.")
        stages = Stages(self.cache, self._worker, listener)
        result = self.load(method, listener).segment(photo, vocabulary, options, stages)
        if options.unlabelled:
            result = result.leave_out(options.unlabelled)
        return replace(result, timings=stages.timings, notes=photo.notes + vocabulary.notices + result.notes)

    def load(self, method: str = registry.DEFAULT, listener: Listener = ignore_progress) -> Method:
        """A method, whose models are loaded unless they are held already.

        Args:
            method: the id of the method.
            listener: is told of the progress; what it raises ends the loading.

        Raises MethodError for an unknown or unavailable method, and CheckpointError for damaged weights.
        """
        spec = registry.available(method)
        models = SharedModels(self.device, self._store, listener)
        return models.get("method", method, partial(spec.build, models))


def check_device(device: str) -> None:
    """Raises MethodError for a device that torch cannot use here."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise MethodError(f"The device '{device}' cannot be used here; try cpu.") from error
