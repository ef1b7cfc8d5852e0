"""A photo as windows, because TagCLIP's image encoder was trained on squares of one size."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ovseg_demo.methods.tagclip.prompted_tower import EncodedWindows
from ovseg_demo.models.base import TextEncoder
from ovseg_demo.proposals.base import Report

Origin = tuple[int, int]
"""(top, left) of a window in pixels of the resized photo."""


@dataclass(frozen=True)
class EncodedPhoto:
    """The embeddings of N windows of one photo, which cover it and may overlap, and where they lie.

    Attributes:
        side: (height, width) of every window in pixels of the resized photo.
        origins: of the windows.
        encoded: the embeddings of the N windows as a batch of images.
    """

    side: tuple[int, int]
    origins: tuple[Origin, ...]
    encoded: EncodedWindows

    @property
    def nbytes(self) -> int:
        return self.encoded.patches.nbytes + self.encoded.images.nbytes


class WindowEncoder(TextEncoder, Protocol):
    """Embeds photos and words for a decoder that was trained on embeddings of this encoder."""

    slow_texts: bool
    """Whether embedding a word takes a tenth of a second or more, so that requests should take turns."""

    def embed_image(self, image: np.ndarray, report: Report) -> EncodedPhoto:
        """Embed a photo, uint8 (H, W, 3), RGB. `report` is the progress callback."""
        ...


def window_origins(size: tuple[int, int], side: int, stride: int) -> tuple[Origin, ...]:
    """The origins of square windows that cover a photo, in reading order.

    Windows at the far borders are shifted back into the photo, as in mmsegmentation's sliding window.

    Args:
        size: (H, W) of the photo, neither less than `side`.
        side: of the windows, in pixels.
        stride: from a window to the next, at most `side`.
    """
    rows, columns = (_starts(length, side, stride) for length in size)
    return tuple((top, left) for top in rows for left in columns)


def _starts(length: int, side: int, stride: int) -> list[int]:
    last = length - side
    return [min(start, last) for start in range(0, last + stride, stride)]
