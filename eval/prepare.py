"""Converts raw annotations into the label files of Detectron2's and mmsegmentation's preparations.

    python -m eval.prepare NAME ROOT [--allow-partial]

ROOT is the folder that holds the benchmark's folder, or that folder itself. Existing files are kept, so an
interrupted run is resumed by the same command; a file that cannot be read is reported, and the run goes on.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from eval.datasets import DATASETS, get_spec
from eval.datasets.base import DatasetError
from eval.datasets.labels import label_encoder
from eval.datasets.layout import LayoutAtRoot, candidates, not_found_error
from eval.datasets.spec import Conversion
from ovseg_demo.errors import UserError, exit_status
from ovseg_demo.runtime.files import write_atomically

_FORMATS = {
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".jpg": {"format": "JPEG"},
}
"""Formats by suffix; JPEG has Pillow's default quality, as in the preparations of the published scores."""


@dataclass(frozen=True)
class Job:
    """One file to write.

    Attributes:
        source: the file that is read.
        target: the file that is written.
        make: from the source to the pixels of the target. Raises DatasetError when the source cannot be used.
    """

    source: Path
    target: Path
    make: Callable[[Path], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a conversion.

    Attributes:
        folder: folder of the converted label files.
        labels: number of converted label files.
        written: number of files that this run has written.
        kept: number of files that existed before.
        failures: a sentence for each source that could not be used.
    """

    folder: Path
    labels: int
    written: int
    kept: int
    failures: tuple[str, ...]


def prepare(name: str, root: str | Path) -> Outcome:
    """Convert a benchmark's raw annotations under `root`.

    Args:
        name: a key of DATASETS.
        root: the folder that holds the benchmark's folder, or the benchmark's folder.

    Raises:
        DatasetError: when the raw annotations are missing; it tells what was looked for.
        UserError: when a file cannot be written.
    """
    conversion, source = _find_conversion(name, Path(root).expanduser())
    work = list(conversion_jobs(conversion, source))
    missing = [job for job in work if not job.target.exists()]
    failures = []
    with tqdm(missing, unit="file", desc=name, disable=None) as bar:
        for job in bar:
            try:
                _write(job.target, job.make(job.source))
            except DatasetError as error:
                failures.append(str(error))
                bar.write(f"error: {error}", file=sys.stderr)
    converted = LayoutAtRoot(conversion.target, source.home, source.images)
    return Outcome(
        converted.labels,
        len(converted.label_files()),
        len(missing) - len(failures),
        len(work) - len(missing),
        tuple(failures),
    )


def conversion_jobs(conversion: Conversion, source: LayoutAtRoot) -> Iterator[Job]:
    """Every file of a conversion, including existing ones.

    Args:
        conversion: the conversion.
        source: the raw annotations.
    """
    target = conversion.target
    convert = partial(_labels, source.layout.decode, label_encoder(target.table), conversion.shorter_side)
    photos = source.photos() if conversion.shorter_side else {}
    for key, path in source.label_files().items():
        # In the folder of the sources, converted files keep their subfolders; in another folder they have none.
        below = path.parent.relative_to(source.labels) if target.labels == source.layout.labels else "."
        yield Job(path, source.home / target.labels / below / (key + target.label_suffix), convert)
        if conversion.shorter_side:
            photo = photos.get(key, path.with_name(key + target.image_suffixes[0]))
            scaled = source.home / target.images[0] / (key + target.image_suffixes[0])
            yield Job(photo, scaled, partial(_photo, conversion.shorter_side))


def _find_conversion(name: str, root: Path) -> tuple[Conversion, LayoutAtRoot]:
    """The conversion whose raw annotations exist, and the raw annotations."""
    conversions = get_spec(name).conversions
    if not conversions:
        raise DatasetError(f"{name} needs no preparation: it is read as it is published.")
    for conversion in conversions:
        for candidate in candidates((conversion.source,), root):
            if candidate.label_files():
                return conversion, candidate
    raise not_found_error(
        f"the raw annotation of {name}", candidates([each.source for each in conversions], root), root
    )


def _labels(
    decode: Callable[[Path], np.ndarray], encode: Callable[[np.ndarray], np.ndarray], side: int | None, path: Path
) -> np.ndarray:
    """The values that the target stores for the labels of a file, uint8 or uint16 (H, W)."""
    return _scaled(encode(decode(path)), side, cv2.INTER_NEAREST)


def _photo(side: int, path: Path) -> np.ndarray:
    """A photo, scaled down to a shorter side of `side` pixels, uint8 (H, W, 3)."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise DatasetError(f"There is no photo {path}.") from None
    except Exception as error:  # decoders raise nearly anything on broken files
        raise DatasetError(f"The photo {path} is corrupt or incomplete.") from error
    return _scaled(pixels, side, cv2.INTER_LINEAR)


def _scaled(pixels: np.ndarray, side: int | None, interpolation: int) -> np.ndarray:
    """The pixels scaled down so that the shorter side has `side` pixels, unless it has fewer or `side` is None."""
    shorter = min(pixels.shape[:2])
    if side is None or shorter <= side:
        return pixels
    height, width = (round(length / shorter * side) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=interpolation)


def _write(target: Path, pixels: np.ndarray) -> None:
    """Write an image atomically. Raises UserError when it cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda file: Image.fromarray(pixels).save(file, **_FORMATS[target.suffix]))
    except OSError as error:
        # Not a DatasetError of one file: a full disk or a folder without permission ends the run.
        raise UserError(f"{target} cannot be written: {error.strerror or error}.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for a wrong file or number of files, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return exit_status(lambda: _run(parsed), "Cancelled; the same command goes on from here.")


def _run(arguments: argparse.Namespace) -> int:
    outcome = prepare(arguments.name, arguments.root)
    print(f"{outcome.written} files written to {outcome.folder}, {outcome.kept} were there.", file=sys.stderr)
    expected = get_spec(arguments.name).images
    if outcome.failures:
        print(f"error: {len(outcome.failures)} files could not be converted, see above.", file=sys.stderr)
    if outcome.labels != expected and not arguments.allow_partial:
        print(
            f"error: there are {outcome.labels} label maps, but {arguments.name} has {expected}; with --allow-partial "
            "that is no error.",
            file=sys.stderr,
        )
        return 1
    return 1 if outcome.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval.prepare", description=str(__doc__).splitlines()[0])
    convertible = [name for name, known in DATASETS.items() if known.conversions]
    parser.add_argument("name", choices=list(DATASETS), metavar="NAME", help=", ".join(convertible))
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder with the benchmark's folder")
    parser.add_argument("--allow-partial", action="store_true", help="do not ask for the published number of images")
    return parser


if __name__ == "__main__":
    sys.exit(main())
