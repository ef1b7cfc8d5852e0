"""A photo as TagCLIP reads it: in windows, because its encoder was trained on squares of one size."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ovseg_demo.methods.tagclip.prompted_tower import EncodedWindows
from ovseg_demo.models.base import TextEncoder
from ovseg_demo.proposals.base import Report

Origin = tuple[int, int]


@dataclass(frozen=True)
class EncodedPhoto:
    """What is known of N windows of one photo, which cover it and may overlap.

    Attributes:
        side: (height, width) of each in pixels of the photo as it was read.
        origins: (top, left) of each, in the same pixels.
        encoded: of the N windows as a batch.
    """

    side: tuple[int, int]
    origins: tuple[Origin, ...]
    encoded: EncodedWindows

    @property
    def nbytes(self) -> int:
        return self.encoded.patches.nbytes + self.encoded.images.nbytes


class WindowEncoder(TextEncoder, Protocol):
    """Reads photos and words for a decoder that was trained on what this reader gives."""

    slow_texts: bool
    """Whether a word takes a tenth of a second and more to read."""

    def embed_image(self, image: np.ndarray, report: Report) -> EncodedPhoto:
        """What is known of a photo, uint8 (H, W, 3)."""


def window_origins(size: tuple[int, int], side: int, stride: int) -> tuple[Origin, ...]:
    """Where squares of `side` begin that cover a photo of (H, W), neither smaller than `side`.

    Those at the far borders are shifted back into the photo, as in mmsegmentation's sliding window.
    """
    rows, columns = (_starts(length, side, stride) for length in size)
    return tuple((top, left) for top in rows for left in columns)


def _starts(length: int, side: int, stride: int) -> list[int]:
    last = length - side
    return [min(start, last) for start in range(0, last + stride, stride)]
