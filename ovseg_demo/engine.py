"""Routes a request to a method; owns devices, models and caches."""

import threading
from dataclasses import replace

import torch

from ovseg_demo.errors import MethodError
from ovseg_demo.image import Photo
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import Method, Options
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime import memory
from ovseg_demo.runtime.stages import Cache, Listener, Progress, SerialWorker, Stages, ignore_progress
from ovseg_demo.vocabulary import Vocabulary

CACHE_BYTES = 512 * 2**20
"""About eighty photos, or SED's prompts of 1000 words and two photos; a small host's memory is mostly the models'."""


class Engine:
    """Segments photos; one engine serves every user of a process, from any thread.

    Example:
        >>> from ovseg_demo import image, vocabulary
        >>> engine = Engine("cpu")
        >>> result = engine.segment(image.load("photo.jpg"), vocabulary.parse("cat, parakeet"), "mini-dense")
        >>> [found.name for found in result.summary()]
        ['cat', 'parakeet']
    """

    def __init__(self, device: str | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        memory.configure_allocator()
        check_device(self.device)
        self.cache = Cache(cache_bytes)
        self._turns = SerialWorker()
        self._methods: dict[str, Method] = {}
        self._loading = threading.Lock()

    def segment(
        self,
        photo: Photo,
        vocabulary: Vocabulary,
        method: str = registry.DEFAULT,
        options: Options | None = None,
        listener: Listener = ignore_progress,
    ) -> Segmentation:
        """Name every pixel of `photo` with a class of `vocabulary`.

        Raises MethodError for an unknown or unavailable method and for options that it cannot follow, CheckpointError
        for damaged weights, and Cancelled when `listener` does.
        """
        stages = Stages(self.cache, self._turns, listener)
        _check_effect(registry.get(method), options)
        chosen = self.load(method, listener)
        result = chosen.segment(photo, vocabulary, options or Options(), stages)
        return replace(result, timings=stages.timings, notes=photo.notes + vocabulary.notices + result.notes)

    def load(self, method: str = registry.DEFAULT, listener: Listener = ignore_progress) -> Method:
        """The method, loaded once and kept. Raises MethodError or CheckpointError when it cannot be."""
        entry = available(method)
        with self._loading:
            if method not in self._methods:
                listener(Progress("Loading the model", 0))
                self._methods[method] = entry.build(self.device)
                listener(Progress("Loading the model", 1))
            return self._methods[method]


def check_device(device: str) -> None:
    """Raises MethodError for a device that torch cannot use here."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise MethodError(f"The device '{device}' cannot be used here; try cpu.") from error


def available(method: str, options: Options | None = None) -> registry.MethodSpec:
    """The entry of a method whose weights are all here. Raises MethodError for another, or for idle options."""
    entry = registry.get(method)
    _check_effect(entry, options)
    if missing := entry.missing():
        raise MethodError(f"{entry.title} needs {missing[0].file}, which is not here. {how_to_get(entry)}")
    return entry


_REFUSED = {
    "ensemble": "ensemble",
    "rejection": "early rejection",
    "keep_aspect": "choice between a square and the photo's aspect ratio",
    "seen": "classes that count as seen",
    "trusty": "trusty map",
    "recipe": "choice between the recipe of the code and that of the paper",
}
"""Options that are refused where they change nothing, and what a method without them does not have."""


def _check_effect(entry: registry.MethodSpec, options: Options | None) -> None:
    """Who sets one of _REFUSED wants other numbers; the rest have defaults that may idle."""
    for option, told in _REFUSED.items():
        if options and getattr(options, option) != getattr(Options, option) and option not in entry.uses:
            able = ", ".join(each.id for each in registry.REGISTRY.values() if option in each.uses)
            raise MethodError(f"{entry.id} has no {told}; these have: {able}.")


def how_to_get(entry: registry.MethodSpec) -> str:
    """One sentence on how to get a method's missing weights."""
    return "Run: " + " && ".join(checkpoint.how_to_get for checkpoint in entry.missing())
