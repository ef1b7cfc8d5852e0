"""A photo as windows, because TagCLIP's image encoder was trained on square images of one size."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from ovseg_demo.models.base import TextEncoder
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.preprocess import window_starts

Origin = tuple[int, int]
"""(top, left) of a window in pixels of the resized photo."""


@dataclass(frozen=True)
class ImageEmbeddings:
    """The patch and image embeddings of a batch of B images, in the space of the text embeddings.

    Attributes:
        patches: unit vectors of the patches, float32 (B, D, h, w).
        images: unit vectors of the whole images, float32 (B, D).
    """

    patches: Tensor
    images: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both in memory."""
        return self.patches.nbytes + self.images.nbytes


@dataclass(frozen=True)
class WindowedPhoto:
    """N windows of one resized photo with their embeddings; the windows cover the photo and may overlap.

    Attributes:
        window_size: (height, width) of every window in pixels of the resized photo.
        origins: of the N windows.
        embeddings: of the N windows, as a batch of images.
    """

    window_size: tuple[int, int]
    origins: tuple[Origin, ...]
    embeddings: ImageEmbeddings

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        return self.embeddings.nbytes


class WindowEncoder(TextEncoder, Protocol):
    """Embeds photos, window by window, and words, for a decoder that was trained on embeddings of this encoder."""

    @property
    def slow_text_encoder(self) -> bool:
        """Whether embedding a word takes a tenth of a second or more, so that requests should take turns."""
        ...

    def embed_image(self, image: np.ndarray, report: Report) -> WindowedPhoto:
        """The windows of a photo, embedded.

        Args:
            image: uint8 (H, W, 3), RGB.
            report: called with the share of the windows that are done, in (0, 1]; or never, when there is one window.
        """
        ...


def window_origins(size: tuple[int, int], side: int, stride: int) -> tuple[Origin, ...]:
    """The origins of square windows that cover a photo, in reading order.

    Args:
        size: (H, W) of the photo, neither less than `side`.
        side: of every window, in pixels.
        stride: pixels from the origin of a window to that of the next, at most `side`.
    """
    rows, columns = (window_starts(length, side, stride) for length in size)
    return tuple((top, left) for top in rows for left in columns)
