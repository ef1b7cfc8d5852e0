"""Label files: reading what they store, and turning it into labels.

Preparations differ in the value they store for a class: shifted by one, with gaps, as a colour. A table says it:
stored value -> label, or IGNORE. A value that is not in the table is an error, because labels of another benchmark, or
of another preparation, would otherwise be measured in silence.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from eval.datasets.base import IGNORE, DatasetError

Table = Mapping[int, int]
Reader = Callable[[Path], np.ndarray]
"""From a path to the stored values, non-negative integers (H, W)."""

_UNKNOWN = IGNORE - 1


def table(stored: Iterable[int], ignored: Iterable[int] = (255,)) -> dict[int, int]:
    """The table of files that store `stored[c]` for class c and `ignored` for pixels that count nowhere."""
    return dict.fromkeys(ignored, IGNORE) | {value: label for label, value in enumerate(stored)}


def decoder(known: Table, read: Reader) -> Callable[[Path], np.ndarray]:
    """A `Dataset.decode` for files with these values. It can be pickled, as other processes need it to be."""
    labels = np.full(max(known) + 2, _UNKNOWN, np.int16)
    labels[list(known)] = list(known.values())
    return partial(_decode, labels, read)


def encoder(known: Table) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of `decoder`: from labels to stored values, uint8 where they fit, else uint16 (H, W).

    Of several values with one meaning the first in the table is stored.
    """
    values = {label: value for value, label in reversed([*known.items()])}
    codes = np.zeros(max(values) + 2, np.uint8 if max(known) < 256 else np.uint16)
    codes[list(values)] = list(values.values())  # IGNORE, which is -1, is the last
    return codes.__getitem__


def read_values(path: Path) -> np.ndarray:
    """The samples of a grey image, or the palette indices of a palette image; 8 or 16 bit, PNG or TIFF.

    Raises DatasetError for a picture in true colour.
    """
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise DatasetError(f"{path} is a picture in colour ({image.mode}), but its pixels should be class indices.")
    return values.astype(np.uint8) if values.dtype == bool else values


def read_colours(path: Path) -> np.ndarray:
    """The colours of a colour-coded picture as numbers, 0xRRGGBB."""
    with Image.open(path) as image:
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
    return red << 16 | green << 8 | blue


def read_object_ids(path: Path) -> np.ndarray:
    """The object of each pixel in a *_seg.png of the full ADE20K: the tens of red count 256 each, green counts one."""
    with Image.open(path) as image:
        red, green, _ = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
    return red // 10 * 256 + green


def read_label_map(path: Path) -> np.ndarray:
    """The variable LabelMap of a MATLAB file, as PASCAL-Context is published. Raises DatasetError without it."""
    with path.open("rb") as file:
        content = scipy.io.loadmat(file, variable_names="LabelMap")
    if "LabelMap" not in content:
        raise DatasetError(f"{path} has no variable LabelMap, so it is not an annotation of PASCAL-Context.")
    values = content["LabelMap"]
    whole = values.astype(np.int32)
    if (whole != values).any():
        raise DatasetError(f"LabelMap in {path} holds values that are no whole numbers.")
    return whole


def _decode(labels: np.ndarray, read: Reader, path: Path) -> np.ndarray:
    try:
        stored = read(path)
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"There is no label file {path}.") from None
    except Exception as error:  # decoders raise nearly anything on broken files
        raise DatasetError(f"The label file {path} is corrupt or incomplete.") from error
    if stored.dtype.kind not in "ui" or stored.min(initial=0) < 0:
        raise DatasetError(f"{path} holds {stored.dtype} values, but class indices are whole numbers from 0 on.")
    decoded = labels.take(stored, mode="clip")
    if (decoded == _UNKNOWN).any():
        value = stored[decoded == _UNKNOWN][0]
        raise DatasetError(f"{path} holds the value {value}, which stands for no class of this benchmark.")
    return decoded.astype(np.int32)
