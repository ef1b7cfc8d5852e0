"""Label files: reading what they store, and turning it into labels.

Preparations differ in the value they store for a class: shifted by one, with gaps, as a colour. A `ValueTable` maps
stored values to labels or IGNORE. A value that is not in the table is an error, because label files of another
benchmark or preparation would otherwise be measured in silence.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from eval.datasets.base import IGNORE, DatasetError

ValueTable = Mapping[int, int]
"""From the values that label files store to labels, or IGNORE."""

Reader = Callable[[Path], np.ndarray]
"""From a path to the stored values, non-negative integers (H, W)."""

_UNKNOWN = IGNORE - 1


def value_table(stored: Iterable[int], ignored: Iterable[int] = (255,)) -> dict[int, int]:
    """The table of files that store one value for each class.

    Args:
        stored: the value of each class, in the order of the labels.
        ignored: values of pixels that count nowhere.
    """
    return dict.fromkeys(ignored, IGNORE) | {value: label for label, value in enumerate(stored)}


def label_decoder(table: ValueTable, read: Reader) -> Callable[[Path], np.ndarray]:
    """A `Dataset.decode`: from the path of a label file to its labels, int32 (H, W). It can be pickled.

    Args:
        table: the values that the files store.
        read: reads the stored values of a file.
    """
    labels = np.full(max(table) + 2, _UNKNOWN, np.int16)
    labels[list(table)] = list(table.values())
    return partial(_decode, labels, read)


def label_encoder(table: ValueTable) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of `label_decoder`: from labels (H, W) to stored values (H, W), uint8 where they fit, else uint16.

    Args:
        table: the values that the files store; of several values with the same label the first is stored.
    """
    values = {label: value for value, label in reversed([*table.items()])}
    codes = np.zeros(max(values) + 2, np.uint8 if max(table) < 256 else np.uint16)
    codes[list(values)] = list(values.values())  # IGNORE, which is -1, is the last element
    return codes.__getitem__


def read_values(path: Path) -> np.ndarray:
    """The grey levels of a grey image, or the palette indices of a palette image; 8 or 16 bit, PNG or TIFF.

    Raises DatasetError for a picture in true colour.
    """
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise DatasetError(f"{path} is a picture in colour ({image.mode}), but its pixels should be class indices.")
    return values.astype(np.uint8) if values.dtype == bool else values


def read_colours(path: Path) -> np.ndarray:
    """The colours of a colour-coded picture as numbers 0xRRGGBB, int32 (H, W)."""
    with Image.open(path) as image:
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
    return red << 16 | green << 8 | blue


def read_object_ids(path: Path) -> np.ndarray:
    """The object id of each pixel in a *_seg.png of the full ADE20K, int32 (H, W): red // 10 * 256 + green."""
    with Image.open(path) as image:
        red, green, _ = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
    return red // 10 * 256 + green


def read_label_map(path: Path) -> np.ndarray:
    """The variable LabelMap of a MATLAB file, as PASCAL-Context is published, int32 (H, W).

    Raises DatasetError when there is no such variable, or it holds fractions.
    """
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
