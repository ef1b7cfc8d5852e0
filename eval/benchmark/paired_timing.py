"""Timing of two implementations of the same model: the implementation of its release, and this project's."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from eval import environment
from eval.benchmark.process import peak, reset_peak
from ovseg_demo.models.clip.optimised import native_precision
from ovseg_demo.runtime import memory

RELEASED = "as published"
"""The implementation of the release; every other name is a precision of this project's implementation."""

Features = TypeVar("Features")
Output = TypeVar("Output")
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Timings:
    """Time and memory of one implementation.

    Attributes:
        reading: seconds of the image tower in each repeat.
        seconds: seconds of each repeat, from the pixels of a photo to the output that is compared.
        megabytes: peak resident memory of the process during the repeats, the model included.
    """

    reading: list[float]
    seconds: list[float]
    megabytes: float

    @property
    def median(self) -> float:
        """The median of `seconds`."""
        return statistics.median(self.seconds)


def implementations() -> list[str]:
    """Names of the implementations: RELEASED, float32, and the processor's fastest precision."""
    return list(dict.fromkeys((RELEASED, "float32", native_precision(torch.device("cpu")))))


def describe_conditions(repeats: int) -> str:
    """The number of repeats, the processor and the number of threads, for the caption of a table."""
    processor = environment.environment("cpu", 1)["processor"]
    return f"medians of {repeats}, on {processor}, {torch.get_num_threads()} threads"


@torch.inference_mode()
def time_repeats(
    read: Callable[[], Features],
    decode: Callable[[Features], Output],
    sample: Callable[[Output], Sample],
    repeats: int,
) -> tuple[Timings, Sample]:
    """Time the image tower and the decoder.

    Args:
        read: computes the image features of a photo.
        decode: computes the output from the image features.
        sample: takes a part of the output that is compared between implementations; this is not timed.
        repeats: how often the photo is computed, 1 or more.

    Returns:
        The time and memory, and the sample of the last output.
    """
    reading, seconds = [], []
    latest: deque[Sample] = deque(maxlen=1)
    reset_peak()
    for _ in range(repeats):
        start = time.perf_counter()
        features = read()
        reading.append(time.perf_counter() - start)
        output = decode(features)
        seconds.append(time.perf_counter() - start)
        latest.append(sample(output))
        del features, output
        memory.trim_allocator()
    return Timings(reading, seconds, peak()), latest.pop()
