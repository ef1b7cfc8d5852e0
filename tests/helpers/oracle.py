"""What is given to a reference and to ours, and what is kept of what they give back."""

import json
import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tests.helpers.paths import FIXTURES


def fixture(name: str) -> dict:
    """What is known of a reference, from a file of JSON."""
    return json.loads((FIXTURES / name).read_text())


def drawn_image() -> np.ndarray:
    """A photo of 53 x 81 pixels, smooth enough that resizing matters little and visibly."""
    y, x = np.mgrid[:53, :81]
    waves = [np.sin(y / 5 + x / (7 + 2 * channel)) for channel in range(3)]
    return (127.5 + 127 * np.stack(waves, -1)).astype(np.uint8)


def sampled(tensor: Tensor) -> Tensor:
    """Some 40 numbers from all over a tensor."""
    flat = tensor.reshape(-1)
    return flat[:: max(1, len(flat) // 40)][:40]


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Evenly spread numbers of mean 0 and variance 1 that depend on the name alone.

    They are made of the upper 23 bits of what numpy's PCG64 gives, seeded with the name's CRC-32: numpy promises these
    bits for ever, which it does not for its distributions.
    """
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape)) >> np.uint64(41)
    even = (bits.astype(np.float32) + np.float32(0.5)) / np.float32(2**23) - np.float32(0.5)
    return torch.from_numpy(even.reshape(shape)) * 12**0.5


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers of a useful size for each tensor of a model."""
    return {name: _weight(name, tuple(shape)) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    numbers = drawn(name, shape)
    if len(shape) < 2:
        return 0.3 * numbers + name.endswith(("weight", "gamma"))
    return numbers / math.prod(shape[1:]) ** 0.5
