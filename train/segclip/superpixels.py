"""Superpixels of photos by Felzenszwalb and Huttenlocher (IJCV 2004), kept in files, and those of a part's patches."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb

from ovseg_demo.result import resize_labels
from ovseg_demo.runtime.files import write_atomically
from train.common.run_folder import TrainingError

SIDE = 224
"""Shorter side, in pixels, of the photos that superpixels are found in, as published."""

SCALE, SIGMA, SMALLEST = 224, 0.9, 224
"""scikit-image's preference for large superpixels, standard deviation of the blur and smallest area, as published."""


class SuperpixelCache:
    """The superpixels of photos. Each photo is computed once and kept in a file that is named by its content.

    Several processes and runs may share the folder.

    Args:
        folder: of the files; it is made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """The label of each pixel's superpixel, from 0, uint16 (H, W).

        Args:
            photo: uint8 (H, W, 3), RGB, its shorter side SIDE.

        Raises:
            TrainingError: when the folder cannot be written.
        """
        settings = (photo.shape, SCALE, SIGMA, SMALLEST)
        digest = hashlib.blake2b(photo.tobytes() + repr(settings).encode(), digest_size=16).hexdigest()
        path = self._folder / digest[:2] / f"{digest[2:]}.png"
        try:
            return np.array(Image.open(path), np.uint16)
        except OSError:  # it is missing or damaged
            labels = felzenszwalb(photo, SCALE, SIGMA, SMALLEST).astype(np.uint16)
        encoded = io.BytesIO()
        Image.fromarray(labels).save(encoded, "PNG")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: file.write(encoded.getvalue()), shared=True, durable=False)
        except OSError as error:
            raise TrainingError(f"Cannot keep superpixels in {self._folder}: {error.strerror}.") from error
        return labels


def patch_superpixels(labels: np.ndarray, side: int, patch: int) -> np.ndarray:
    """The superpixel of each patch, in rows, of a part of a photo that is resized to a square: int64 (L,).

    As in the released code, it is the mean of the pixels' labels, rounded down: a patch across superpixels may get the
    label of a third one.

    Args:
        labels: of the part's pixels, integers (h, w).
        side: of the square in pixels, a multiple of `patch`.
        patch: side of a patch in pixels.
    """
    count = side // patch
    square = resize_labels(labels, (side, side)).astype(np.int64)
    return square.reshape(count, patch, count, patch).sum((1, 3)).ravel() // patch**2
