"""Decode, orient and bound input images."""

import hashlib
import io
import math
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ovseg_demo.errors import ImageError, UserError
from ovseg_demo.memory_budget import PHOTOS

MAX_PIXELS = 120_000_000
"""Medium-format cameras make 100 megapixels. Formats whose decoders take much memory have a lower limit."""

DECODING_SECONDS = 20
"""A file that takes longer to read is refused. Reading is what is bounded: converting and resizing what has been read,
which the limits of pixels bound, comes after it."""

_CHECK_SECONDS = 0.1

MAX_SCANS = 100
"""Progressive JPEGs have about ten scans. Each scan can cost a pass over the whole image in a few bytes of the file."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""File formats that are read, by Pillow's names. Pillow knows more; some of them it reads by running other programs."""

_BYTES_PER_PIXEL = {"PNG": 4, "BMP": 4, "GIF": 4, "TIFF": 12, "AVIF": 14, "WEBP": 20}
"""The most memory that decoding takes. libtiff holds a strip beside the image, which can be the whole image with 16
bits a sample; the decoder of WebP holds three canvases beside the output and the image."""
_BYTES_PER_PIXEL_OF_SCANS = 8
"""As above, of JPEGs with more than one scan: the coefficients, two bytes each, of at most four components. Such an
image, too, becomes pixels at a fraction of its size, but only when all its scans have been read."""
_SCAN_PIXELS = 2_000_000_000
"""The most pixels of all scans of a JPEG together: forty scans of 50 megapixels, for example."""
_BAND_PIXELS = 2**21
"""Pixels that are converted at once, so that conversion adds no second copy of a large image."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the value of its EXIF orientation; 5 to 8 swap its sides."""

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


def load(source: str | Path | bytes, longest: int = WORKING_SIDE, check: Callable[[], object] = lambda: None) -> Photo:
    """Decode an image file or its bytes.

    EXIF orientation is applied, transparency lies over white; palettes, CMYK, grey, 16-bit and float samples are
    converted; of an animation the first frame is taken. Decoding waits until
    its memory fits into `memory_budget.PHOTOS`.

    Args:
        source: path of a file, or its content.
        longest: longest side, in pixels, of `Photo.pixels` and so of results; smaller images are not enlarged.
            Evaluations of published models need READING_SIDE, so that the page's bound does not cost accuracy.
        check: called again and again while decoding waits and while the file is read; what it raises, such as
            Cancelled, ends the decoding.

    Raises ImageError when the image cannot be read, is incomplete, has more than MAX_PIXELS pixels or the fewer that
    its format allows, has more than MAX_SCANS scans, or takes longer than DECODING_SECONDS to read.
    """
    try:
        # Pillow warns of large images, for which we have a limit, and of each damaged tag, which would flood the log.
        with warnings.catch_warnings(), io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            warnings.simplefilter("ignore")
            watched = _WatchedFile(file, check)
            with Image.open(watched, formats=FORMATS) as opened:  # type: ignore[arg-type]  Pillow only reads and seeks
                return _decode(opened, watched, longest)
    except UserError:
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


class _WatchedFile:
    """A file that can be read until its time is over or its reader is cancelled.

    Pillow reads headers, blocks and compressed pixels in small pieces, so this bounds the time of endless metadata too.

    Args:
        file: a binary file.
        check: called at most every _CHECK_SECONDS, before a reading; what it raises ends the reading.
    """

    def __init__(self, file: io.BufferedIOBase, check: Callable[[], object]) -> None:
        self._file, self.check = file, check
        self._next_check = time.monotonic() + _CHECK_SECONDS
        self.restart()

    def restart(self) -> None:
        """Begin to measure the time anew."""
        self._end = time.monotonic() + DECODING_SECONDS

    def read(self, size: int = -1) -> bytes:
        now = time.monotonic()
        if now > self._next_check:
            self._next_check = now + _CHECK_SECONDS
            self.check()
        if now > self._end:
            raise ImageError(
                f"This image takes more than {DECODING_SECONDS} seconds to decode; save it again as an ordinary JPEG."
            )
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


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


def _decode(opened: Image.Image, file: _WatchedFile, longest: int) -> Photo:
    width, height = opened.size
    is_jpeg = opened.format in ("JPEG", "MPO")
    if width * height > MAX_PIXELS:  # before the scans of a JPEG are counted
        raise ImageError(_too_large(width * height))
    scans = _count_scans(file) if is_jpeg else 0
    if scans > MAX_SCANS or scans * width * height > _SCAN_PIXELS:
        raise ImageError("This JPEG has too many scans for its size; save it again as an ordinary JPEG.")
    bytes_per_pixel = _BYTES_PER_PIXEL_OF_SCANS * (scans > 1) if is_jpeg else _BYTES_PER_PIXEL[opened.format or ""]
    limit = min(MAX_PIXELS, PHOTOS.limit_bytes // max(1, bytes_per_pixel))
    if width * height > limit:
        raise ImageError(_too_large(width * height, limit, "progressive JPEG" if is_jpeg else opened.format))
    notes = ()
    if opened.format != "MPO" and getattr(opened, "is_animated", False):  # phones' MPO files add previews of the photo
        notes = ("Only the first of several frames or pages is used.",)
    # A JPEG can be decoded at a fraction of its size, which saves most of the time and memory of a huge one.
    share = min(1.0, READING_SIDE / max(width, height))
    opened.draft("RGB", (max(1, int(width * share)), max(1, int(height * share))))
    needed = width * height * bytes_per_pixel + is_jpeg * 4 * math.prod(opened.size)
    with PHOTOS.held(needed, file.check):
        file.restart()
        opened.load()
        # Pillow turns TIFF upright in `load` and then forgets the orientation, and has swapped the sides at the start.
        turn = _orientation(opened)
        original_size = (width, height) if turn >= 5 else (height, width)
        return _bounded(opened, original_size, notes, longest, _TURNS.get(turn))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is absent or means nothing. Some programs store it as text or byte."""
    try:
        stored: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
        if isinstance(stored, tuple):
            (stored,) = stored
        if isinstance(stored, bytes) and len(stored) == 1 and stored[0] in _TURNS:
            stored = stored[0]
        value = int(stored)
    except Exception:  # damaged metadata, on which Pillow raises nearly anything, does not make the pixels unusable
        return 1
    return value if value in _TURNS else 1


def _count_scans(file: _WatchedFile) -> int:
    """How many scans a JPEG file has, at most MAX_SCANS + 1; reads markers only. The file is left where it was."""
    place = file.tell()
    file.seek(0)
    content, at, scans = file.read(), 2, 0
    file.seek(place)
    marker = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # neither escaped data nor a restart marker within a scan
    while scans <= MAX_SCANS and (found := marker.search(content, at)):
        code, at = found[1][0], found.end()
        if code == 0xD9:  # the end of the image
            break
        scans += code == 0xDA
        at += int.from_bytes(content[at : at + 2], "big")
    return scans


def _sample_range(image: Image.Image) -> tuple[float, float] | None:
    """The values of samples of more than 8 bits, or floats, that become 0 and 255; None for 8-bit samples.

    Integers up to 65535 are taken as 16-bit, floats up to 1 as full scale; anything else is stretched to its range.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return None
    step = max(1, _BAND_PIXELS // image.width)
    bands = [image.crop((0, top, image.width, min(top + step, image.height))) for top in range(0, image.height, step)]
    ranges = [(samples.min(), samples.max()) for samples in map(_finite, bands)]
    low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
    if low >= 0 and high <= 1:
        return 0, 1
    return (0, 65535) if low >= 0 and high <= 65535 else (low, high)


def _finite(image: Image.Image) -> np.ndarray:
    """The samples of an image, float64 (H, W); 0 for what is not a number, the largest numbers for infinity."""
    return np.nan_to_num(np.asarray(image, np.float64))


def _as_rgb(image: Image.Image, sample_range: tuple[float, float] | None) -> Image.Image:
    """An image in RGB, over white where it is transparent; `sample_range` as of `_sample_range`."""
    if sample_range is not None:
        low, high = sample_range
        samples = (_finite(image) - low) * (255 / ((high - low) or 1))
        return Image.fromarray(np.round(samples).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _bounded(
    image: Image.Image,
    original_size: tuple[int, int],
    notes: tuple[str, ...],
    longest: int,
    turn: Image.Transpose | None = None,
) -> Photo:
    """A photo of a decoded image, which `turn` makes upright; what is turned is small by then."""
    sample_range = _sample_range(image)

    def sized(side: int) -> np.ndarray:
        shrunk = _shrunk(image, side, sample_range)
        return np.array(shrunk if turn is None else shrunk.transpose(turn))

    full = sized(READING_SIDE) if min(max(image.size), READING_SIDE) > longest else None
    return Photo(sized(longest), original_size, notes, full)


def _shrunk(image: Image.Image, longest: int, sample_range: tuple[float, float] | None) -> Image.Image:
    """An image in RGB, resized where its longest side has more than `longest` pixels; `sample_range` as of `_as_rgb`.

    It is converted and resized in bands of rows. Each has the rows around it that the filter reads, so the bands are
    what resizing the whole image gives.
    """
    scale = longest / max(image.size)
    if scale >= 1:
        return _as_rgb(image, sample_range)
    width, height = (max(1, math.floor(side * scale + 0.5)) for side in image.size)
    ratio = image.height / height
    step, margin = max(1, int(_BAND_PIXELS / (image.width * ratio))), math.ceil(3 * max(1, ratio)) + 1
    shrunk = Image.new("RGB", (width, height))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first, last = max(0, int(top * ratio) - margin), min(image.height, math.ceil(bottom * ratio) + margin)
        band = _as_rgb(image.crop((0, first, image.width, last)), sample_range)
        box = (0, top * ratio - first, image.width, min(bottom * ratio - first, last - first))
        shrunk.paste(band.resize((width, bottom - top), Image.Resampling.LANCZOS, box), (0, top))
    return shrunk


def _too_large(pixels: int | None = None, limit: int = MAX_PIXELS, kind: str | None = None) -> str:
    size = f"{pixels / 1e6:.0f} megapixels" if pixels else "Too many pixels"
    allowed = f"the limit{f' for {kind}' if kind else ''} is {limit / 1e6:.0f} megapixels"
    return f"This image is too large ({size}); {allowed}."
