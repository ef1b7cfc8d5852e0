"""Files made from a result: indexed PNG, overlay PNG, JSON with COCO run lengths."""

import io
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from ovseg_demo import __version__
from ovseg_demo.errors import ImageError
from ovseg_demo.image import Photo
from ovseg_demo.memory_budget import PHOTOS
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.render import draw
from ovseg_demo.result import Segmentation, nearest, resize_labels
from ovseg_demo.runtime.files import write_atomically
from ovseg_demo.runtime.memory import trim_allocator
from ovseg_demo.vocabulary import Vocabulary

UNLABELLED_8BIT = 255
"""Index of unlabelled pixels in label maps of up to 255 classes."""
UNLABELLED_16BIT = 65535
"""Index of unlabelled pixels in label maps of more classes."""


def label_png(result: Segmentation, size: tuple[int, int] | None = None) -> bytes:
    """Class indices as a PNG.

    Up to 255 classes: 8-bit with the class colours as palette, 255 where unlabelled, the convention of PASCAL VOC.
    More classes: 16-bit grey, 65535 where unlabelled.

    Args:
        result: the segmentation.
        size: (H, W) of the PNG, made by nearest neighbour; None is the size of the result.
    """
    small = len(result.names) <= UNLABELLED_8BIT
    unlabelled, kind = (UNLABELLED_8BIT, np.uint8) if small else (UNLABELLED_16BIT, np.uint16)
    # Indices are resized in as few bytes as they need: labels are 480 MB at 120 megapixels.
    indices = resize_labels(np.where(result.labels < 0, unlabelled, result.labels).astype(kind), size or result.size)
    picture = Image.fromarray(indices)
    if small:
        palette = np.tile(np.array(draw.UNLABELLED_COLOUR, np.uint8), (256, 1))
        palette[: len(result.names)] = draw.colours(result.names)
        picture.putpalette(palette.tobytes())
    return _png(picture)


def overlay_png(photo: Photo, result: Segmentation) -> bytes:
    """The overlay as a PNG, at the working size of the photo."""
    return _png(Image.fromarray(draw.overlay(photo.pixels, result)))


def to_json(
    result: Segmentation,
    vocabulary: Vocabulary,
    method: str,
    options: MethodOptions,
    size: tuple[int, int] | None = None,
) -> str:
    """The result as JSON text.

    "classes" lists the classes that occur, each with its index in "vocabulary", its colour, its share of the image
    (0 to 1), its mean confidence (0 to 1) and its mask as COCO run lengths, which pycocotools decodes. "presence" of
    every class in "vocabulary" is the probability (0 to 1) that it is in the image at all, null where the method does
    not tell.

    Args:
        result: the segmentation.
        vocabulary: of the request.
        method: id of the method.
        options: of the request; all their values are written.
        size: (H, W) that is described, at least that of the result, by nearest neighbour; None is that of the result.
    """
    size = height, width = size or result.size
    colours = draw.colours(result.names)
    unknown = [None] * len(result.names)
    presence = unknown if result.presence is None else result.presence.astype(float).round(4).tolist()
    content = {
        "generator": f"ovseg-demo {__version__}",
        "method": method,
        **options.given(),
        **{name: choice.value for name, choice in result.chosen.items()},
        **{f"{name}_reason": choice.reason for name, choice in result.chosen.items()},
        "width": width,
        "height": height,
        "vocabulary": [
            {"name": name, "synonyms": synonyms, "presence": probability}
            for name, synonyms, probability in zip(result.names, vocabulary.synonyms, presence, strict=True)
        ],
        "classes": [
            {
                "index": c.index,
                "name": c.name,
                "colour": "#" + bytes(colours[c.index]).hex(),
                "pixels": c.pixels,
                "share": round(c.share, 6),
                "confidence": round(c.confidence, 4),
                "segmentation": _run_lengths(result.mask(c.index), size),
            }
            for c in result.summary(size)
        ],
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.timings.items()},
        "notes": result.notes,
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


_LABEL_BYTES_PER_PIXEL = 5
"""Most memory of `label_png`: indices of two bytes, Pillow's copy, and the file."""

FILE_SUFFIXES = {"overlay": ".overlay.png", "labels": ".labels.png", "json": ".json"}
"""The kinds of files of a result, and the endings of their names."""


def write_files(
    folder: Path,
    stem: str,
    photo: Photo,
    result: Segmentation,
    vocabulary: Vocabulary,
    method: str,
    options: MethodOptions,
    kinds: Sequence[str] = tuple(FILE_SUFFIXES),
) -> list[Path]:
    """Write STEM.overlay.png (at the working size), STEM.labels.png and STEM.json (at the photo's original size).

    Args:
        folder: where the files go; it is made if it is missing.
        stem: the beginning of the files' names.
        photo: the photo that was segmented.
        result: its segmentation, of the size of its `pixels`.
        vocabulary: of the request.
        method: id of the method.
        options: of the request.
        kinds: which files to write, keys of FILE_SUFFIXES.

    Returns:
        The paths in the order of `kinds`.

    Raises ImageError when the files cannot be written.
    """
    paths = [folder / f"{stem}{FILE_SUFFIXES[kind]}" for kind in kinds]
    size = photo.original_size
    for kind, path in zip(kinds, paths, strict=True):
        if kind == "overlay":
            content = overlay_png(photo, result)
        elif kind == "labels":
            with PHOTOS.held(_LABEL_BYTES_PER_PIXEL * math.prod(size)):
                content = label_png(result, size)
                trim_allocator()
        else:
            content = to_json(result, vocabulary, method, options, size).encode()
        with _writing_into(folder):
            write_atomically(path, lambda file, content=content: file.write(content), shared=True)
    return paths


def check_writable(folder: Path) -> None:
    """Raises ImageError when files cannot be written into a folder, which is made if it is missing."""
    with _writing_into(folder), tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """Makes the folder if it is missing; a system error inside the `with` statement becomes an ImageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ImageError(f"Cannot write into {folder}: {error.strerror or error}.") from error


def _run_lengths(mask: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths at another size.

    The runs go down the columns, and those of an enlarged mask follow from its own, so it is never made.

    Args:
        mask: bool (h, w).
        size: (H, W), at least h and w.
    """
    (height, width), rows = size, len(mask)
    columns = mask[:, nearest(width, mask.shape[1])].ravel("F")
    begins = np.flatnonzero(np.diff(columns, prepend=False))  # runs alternate, and the first is of False
    first_rows = -(np.arange(rows) * -height // rows)  # the first enlarged row of each row
    places = begins // rows * height + first_rows[begins % rows]
    counts = np.diff(places, prepend=0, append=height * width).tolist()
    encoded: Any = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
