"""What the comparisons of a model with the way of its release share: who takes part, and how long each takes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from eval import environment
from eval.benchmark.process import peak, reset_peak
from ovseg_demo.models.clip.optimised import native_precision
from ovseg_demo.runtime import memory

RELEASED = "as published"
"""The way of the release; all others are ours in the precision of that name."""

Read, Found, Kept = TypeVar("Read"), TypeVar("Found"), TypeVar("Kept")


@dataclass(frozen=True)
class Times:
    """What a contender takes.

    Attributes:
        reading: seconds of the image tower, of each repeat.
        seconds: from a photo's pixels to what is compared, of each repeat.
        megabytes: peak resident memory of the process meanwhile, the model included.
    """

    reading: list[float]
    seconds: list[float]
    megabytes: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def ways() -> list[str]:
    """RELEASED, and ours in float32 and in the precision that the processor computes fastest."""
    return list(dict.fromkeys((RELEASED, "float32", native_precision(torch.device("cpu")))))


def conditions(repeats: int) -> str:
    """How and where it was measured."""
    processor = environment.environment("cpu", 1)["processor"]
    return f"medians of {repeats}, on {processor}, {torch.get_num_threads()} threads"


@torch.inference_mode()
def timed(
    read: Callable[[], Read], decode: Callable[[Read], Found], keep: Callable[[Found], Kept], repeats: int
) -> tuple[Times, Kept]:
    """Run `read` and `decode` so many times; what `keep` keeps of the last result is not timed."""
    reading, seconds = [], []
    reset_peak()
    for _ in range(repeats):
        start = time.perf_counter()
        photo = read()
        reading.append(time.perf_counter() - start)
        found = decode(photo)
        seconds.append(time.perf_counter() - start)
        kept = keep(found)
        del photo, found
        memory.trim_allocator()
    return Times(reading, seconds, peak()), kept
