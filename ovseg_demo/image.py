"""Decode, orient and bound input images."""

import hashlib
import io
import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ovseg_demo.errors import ImageError

MAX_PIXELS = 120_000_000
"""Medium-format cameras make 100 megapixels; one decoded image of this size takes 360 MB."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""What people's photos come in. Pillow reads more, some of it by running other programs."""

WORKING_SIDE = 1024
"""Longest side, in pixels, that the models see: the input size of SAM, so more would be thrown away."""


@dataclass(frozen=True)
class Photo:
    """A decoded image, upright, bounded in size.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, longest side at most WORKING_SIDE.
        original_size: (H, W) of the upright image before bounding, the size of exported results.
        notes: sentences on what was done to it that a person may not expect.
    """

    pixels: np.ndarray
    original_size: tuple[int, int]
    notes: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Content hash: equal for equal pixels, whatever the file was called."""
        digest = hashlib.blake2b(self.pixels.tobytes(), digest_size=16)
        digest.update(repr(self.pixels.shape).encode())
        return digest.hexdigest()


def load(source: str | Path | bytes) -> Photo:
    """Decode an image file or its bytes.

    Handles EXIF orientation, alpha (over white), palettes, CMYK, grey, 16-bit and float samples; of an animation
    the first frame is taken.

    Raises ImageError when it cannot be read, is incomplete, or has more than MAX_PIXELS pixels.
    """
    try:
        # Pillow's own warning about large images is superseded by our limit.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as opened:
                return _decode(opened)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"There is no file {source}.") from None
    except IsADirectoryError:
        raise ImageError(f"{source} is a folder, not an image.") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large()) from None
    except UnidentifiedImageError:
        raise ImageError("This file is not an image that can be read; try JPEG, PNG or WebP.") from None
    except MemoryError:
        raise ImageError("There is not enough memory to decode this image; try a smaller one.") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        raise ImageError("This image is corrupt or incomplete.") from error


def from_array(pixels: np.ndarray) -> Photo:
    """A photo from RGB pixels, uint8 (H, W, 3). Raises ImageError for another shape or type."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"Expected RGB pixels, uint8 (H, W, 3); got {pixels.dtype} {pixels.shape}.")
    return _bounded(Image.fromarray(pixels), pixels.shape[:2], ())


def _decode(opened: Image.Image) -> Photo:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(width * height))
    notes = ()
    if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":  # phones keep a preview behind the photo
        notes = (f"Only the first of {opened.n_frames} frames is used.",)
    turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    # A JPEG can be decoded at a fraction of its size, which saves most of the time and memory of a huge one.
    opened.draft("RGB", (2 * WORKING_SIDE, 2 * WORKING_SIDE))
    opened.load()
    upright = ImageOps.exif_transpose(opened)
    return _bounded(_as_rgb(upright), (width, height) if turned else (height, width), notes)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bit(np.asarray(image, np.float64))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bit(samples: np.ndarray) -> np.ndarray:
    """Samples of more than 8 bits, or floats, to uint8 (H, W).

    Integers up to 65535 are taken as 16-bit, floats up to 1 as full scale; anything else is stretched to its range.
    """
    samples = np.nan_to_num(samples)
    low, high = samples.min(), samples.max()
    if low >= 0 and high <= 1:
        low, high = 0, 1
    elif low >= 0 and high <= 65535:
        low, high = 0, 65535
    return np.round((samples - low) * (255 / ((high - low) or 1))).astype(np.uint8)


def _bounded(image: Image.Image, original_size: tuple[int, int], notes: tuple[str, ...]) -> Photo:
    scale = WORKING_SIDE / max(image.size)
    if scale < 1:
        size = tuple(max(1, math.floor(side * scale + 0.5)) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return Photo(np.array(image), original_size, notes)


def _too_large(pixels: int | None = None) -> str:
    told = f"{pixels / 1e6:.0f} megapixels" if pixels else "Too many pixels"
    return f"This image is too large ({told}); the limit is {MAX_PIXELS / 1e6:.0f} megapixels."
