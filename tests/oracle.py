"""What is given to a reference and to ours, and what is kept of what they give back."""

import numpy as np
from torch import Tensor


def drawn_image() -> np.ndarray:
    """A photo of 53 x 81 pixels, smooth enough that resizing matters little and visibly."""
    y, x = np.mgrid[:53, :81]
    waves = [np.sin(y / 5 + x / (7 + 2 * channel)) for channel in range(3)]
    return (127.5 + 127 * np.stack(waves, -1)).astype(np.uint8)


def sampled(tensor: Tensor) -> Tensor:
    """Some 40 numbers from all over a tensor."""
    flat = tensor.reshape(-1)
    return flat[:: max(1, len(flat) // 40)][:40]
