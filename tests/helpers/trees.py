"""Writes small benchmarks in the formats of the real ones."""

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image


def photo(path: Path, height: int = 2, width: int = 3) -> None:
    """A grey JPEG or PNG."""
    _parent(path)
    Image.new("RGB", (width, height), (128, 128, 128)).save(path)


def labels(path: Path, values: list[list[int]], colours: bool = False) -> None:
    """Values as the suffix says: 8-bit grey PNG (with `colours`, of a palette), 16-bit TIFF or a MATLAB file."""
    _parent(path)
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"LabelMap": np.array(values, np.uint16)}, do_compression=True)
        return
    image = Image.fromarray(np.array(values, np.uint16 if path.suffix == ".tif" else np.uint8))
    if colours:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)


def picture(path: Path, colours: list[list[tuple[int, ...]]]) -> None:
    """A picture in true colour, as Cityscapes and the full ADE20K code their labels."""
    _parent(path)
    Image.fromarray(np.array(colours, np.uint8)).save(path)


def listing(path: Path, keys: list[str]) -> None:
    """A split file."""
    _parent(path)
    path.write_text("".join(f"{key}\n" for key in keys))


def _parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
