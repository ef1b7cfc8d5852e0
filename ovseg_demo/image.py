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
"""File formats that are read, by Pillow's names. Pillow knows more; some of them it reads by running other programs."""

WORKING_SIDE = 1024
"""Longest side, in pixels, of the photos that the page shows, of results, and of the input of SAM."""

READING_SIDE = 2560
"""Longest side, in pixels, of the photos that published models read: none of them resizes photos to more."""


@dataclass(frozen=True)
class Photo:
    """A decoded image, upright, bounded in size.

    Attributes:
        pixels: uint8 (H, W, 3), RGB: what the page shows, at the size of results; longest side at most WORKING_SIDE
            unless a larger one was asked for.
        original_size: (H, W) of the upright image before bounding, the size of exported results.
        notes: sentences on what was done to the image that a person may not expect.
        full: uint8 (H', W', 3), RGB, the same image with a longest side of at most READING_SIDE, for models that
            resize photos themselves; None where `pixels` has all pixels that were kept.
    """

    pixels: np.ndarray
    original_size: tuple[int, int]
    notes: tuple[str, ...] = ()
    full: np.ndarray | None = None

    def pixels_for(self, longest: int) -> np.ndarray:
        """The pixels for a model that wants a longest side of at most `longest` pixels: uint8 (H, W, 3), RGB.

        Only two sizes are kept, so this is `full` for a model that wants more than `pixels` has, and else `pixels`,
        which may be larger than wanted where a larger size was asked for in `load`.
        """
        return self.pixels if self.full is None or longest <= max(self.pixels.shape[:2]) else self.full

    @cached_property
    def key(self) -> str:
        """Content hash: equal for equal pixels at equal sizes, whatever the file was called."""
        all_pixels = self.pixels if self.full is None else self.full
        digest = hashlib.blake2b(np.ascontiguousarray(all_pixels).data, digest_size=16)
        digest.update(repr((all_pixels.shape, self.pixels.shape)).encode())
        return digest.hexdigest()


def load(source: str | Path | bytes, longest: int = WORKING_SIDE) -> Photo:
    """Decode an image file or its bytes.

    EXIF orientation is applied, transparency lies over white; palettes, CMYK, grey, 16-bit and float samples are
    converted; of an animation the first frame is taken.

    Args:
        source: path of a file, or its content.
        longest: longest side, in pixels, of `Photo.pixels` and so of results; smaller images are not enlarged.
            Evaluations of published models need READING_SIDE, so that the page's bound does not cost accuracy.

    Raises ImageError when the image cannot be read, is incomplete, or has more than MAX_PIXELS pixels.
    """
    try:
        # Pillow's own warning about large images is superseded by our limit.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as opened:
                return _decode(opened, longest)
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


def from_array(pixels: np.ndarray, longest: int = WORKING_SIDE) -> Photo:
    """A photo from RGB pixels.

    Args:
        pixels: uint8 (H, W, 3).
        longest: as of `load`.

    Raises ImageError for another shape or type, and for no pixels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"Expected RGB pixels, uint8 (H, W, 3); got {pixels.dtype} {pixels.shape}.")
    return _bounded(Image.fromarray(pixels), pixels.shape[:2], (), longest)


def _decode(opened: Image.Image, longest: int) -> Photo:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(width * height))
    notes, frames = (), getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # the further frames of phones' MPO files are previews of the photo
        notes = (f"Only the first of {frames} frames is used.",)
    turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    # A JPEG can be decoded at a fraction of its size, which saves most of the time and memory of a huge one.
    share = min(1.0, READING_SIDE / max(width, height))
    opened.draft("RGB", (max(1, int(width * share)), max(1, int(height * share))))
    opened.load()
    upright = ImageOps.exif_transpose(opened)
    return _bounded(_as_rgb(upright), (width, height) if turned else (height, width), notes, longest)


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


def _bounded(image: Image.Image, original_size: tuple[int, int], notes: tuple[str, ...], longest: int) -> Photo:
    pixels = _shrunk(image, longest)
    full = _shrunk(image, READING_SIDE) if min(max(image.size), READING_SIDE) > longest else None
    return Photo(pixels, original_size, notes, full)


def _shrunk(image: Image.Image, longest: int) -> np.ndarray:
    """The pixels of an image, uint8 (H, W, 3), resized where its longest side has more than `longest` pixels."""
    scale = longest / max(image.size)
    if scale < 1:
        width, height = (max(1, math.floor(side * scale + 0.5)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(image)


def _too_large(pixels: int | None = None) -> str:
    size = f"{pixels / 1e6:.0f} megapixels" if pixels else "Too many pixels"
    return f"This image is too large ({size}); the limit is {MAX_PIXELS / 1e6:.0f} megapixels."
