"""Where the preparations of a benchmark keep its files, and the search for these files under a root folder."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.datasets.base import DatasetError, Sample
from eval.datasets.labels import Reader, ValueTable, label_decoder, read_values

_CONVERTED = "TrainIds"
"""Ending of the stems of converted label maps, which mmsegmentation keeps beside the raw ones."""

_LISTED = 5
"""Number of names that an error lists of a folder's content."""


@dataclass(frozen=True)
class Layout:
    """How one preparation stores a benchmark.

    Attributes:
        homes: possible folders of the benchmark, relative to the root, in the order they are tried; "" for a root
            that is the benchmark's own folder.
        images: possible folders of the photos, relative to the home, in the order they are tried; with subfolders.
        labels: folder of the label files, relative to the home; with subfolders.
        table: the label of each value that the label files store.
        split: possible files that list the keys of the benchmark, one a line, relative to the home; the first that
            exists is read. Where the layout names none, every photo and every label file belongs to the benchmark;
            where none of them exists, every label file does.
        mixed: whether the label folder holds other splits too, so that one of the `split` files must be there.
        image_suffixes: what may follow the key in the names of photos.
        label_suffix: what follows the key in the names of label files.
        read: how a label file is read.
        accepts: given the label files, tells whether they are of this preparation; None where the paths alone tell.
    """

    homes: tuple[str, ...]
    images: tuple[str, ...]
    labels: str
    table: ValueTable
    split: tuple[str, ...] = ()
    mixed: bool = False
    image_suffixes: tuple[str, ...] = (".jpg",)
    label_suffix: str = ".png"
    read: Reader = read_values
    accepts: Callable[[Sequence[Path]], bool] | None = None

    @property
    def decode(self) -> Callable[[Path], np.ndarray]:
        """From a label file to labels, int32 (H, W)."""
        return label_decoder(self.table, self.read)


@dataclass(frozen=True)
class LayoutAtRoot:
    """A layout under a root folder: paths that may or may not exist.

    Attributes:
        layout: the layout.
        home: the benchmark's folder.
        images: folder of the photos.
    """

    layout: Layout
    home: Path
    images: Path

    @property
    def labels(self) -> Path:
        """Folder of the label files."""
        return self.home / self.layout.labels

    def photos(self) -> dict[str, Path]:
        """The existing photos by key, including photos of other splits in the same folder."""
        return _files(self.images, self.layout.image_suffixes)

    def label_files(self) -> dict[str, Path]:
        """The existing label files by key; only the listed ones if there is a split file."""
        files = _files(self.labels, (self.layout.label_suffix,))
        keys = self._listed()
        if keys is None:
            return {} if self.layout.mixed else files
        return {key: files[key] for key in keys if key in files}

    def samples(self) -> tuple[Sample, ...]:
        """The benchmark's images, sorted by key; none unless at least one photo and its label file are there.

        A photo without label file, or the reverse, is a sample with the path where the missing file should be.
        """
        photos, maps = self.photos(), self.label_files()
        if not photos.keys() & maps.keys():
            return ()
        if self.layout.accepts and not self.layout.accepts(list(maps.values())):
            return ()
        keys = self._listed()
        if keys is None:
            keys = maps.keys() if self.layout.split else photos.keys() | maps.keys()
        return tuple(self._sample(key, photos.get(key), maps.get(key)) for key in sorted(keys))

    def _sample(self, key: str, photo: Path | None, labels: Path | None) -> Sample:
        """A sample; the path of a missing file is made up, in the same subfolder as the file that exists."""
        below = "." if photo is None else photo.parent.relative_to(self.images)
        expected = self.labels / below / (key + self.layout.label_suffix)
        return Sample(key, photo or self.images / (key + self.layout.image_suffixes[0]), labels or expected)

    def _listed(self) -> set[str] | None:
        """The keys in the split file; None without one."""
        for name in self.layout.split:
            path = self.home / name
            if path.is_file():
                try:
                    return set(path.read_text(encoding="utf-8").split())
                except (OSError, ValueError) as error:
                    raise DatasetError(f"The list of images {path} cannot be read: {error}.") from error
        return None

    def searched_paths(self, root: Path) -> Iterator[str]:
        """The paths that are looked for, relative to `root`, each with what is found there."""
        yield _state(self.images, self.layout.image_suffixes, root)
        yield _state(self.labels, (self.layout.label_suffix,), root)
        if self.layout.mixed and self._listed() is None:
            yield f"{(self.home / self.layout.split[0]).relative_to(root)} (absent)"


def candidates(layouts: Sequence[Layout], root: Path) -> list[LayoutAtRoot]:
    """Every layout in every possible folder, in the order they are tried.

    Args:
        layouts: the layouts of a benchmark.
        root: the benchmark's folder, or the folder that holds it.
    """
    return [
        LayoutAtRoot(layout, root / home, root / home / images)
        for layout in layouts
        for home in layout.homes
        for images in layout.images
    ]


def find_samples(what: str, layouts: Sequence[Layout], root: Path) -> tuple[Layout, tuple[Sample, ...]]:
    """The first layout whose files are under `root`, with its samples.

    Args:
        what: name of the benchmark, for the error.
        layouts: the layouts of the benchmark, in the order they are tried.
        root: the benchmark's folder, or the folder that holds it.

    Raises:
        DatasetError: when there is none; it names the paths that were looked for, and what `root` holds.
    """
    searched = candidates(layouts, root)
    for candidate in searched:
        if samples := candidate.samples():
            return candidate.layout, samples
    raise not_found_error(what, searched, root)


def not_found_error(what: str, tried: Sequence[LayoutAtRoot], root: Path) -> DatasetError:
    """The error which names the paths where `what` was looked for, and what `root` holds.

    Args:
        what: what was looked for.
        tried: the layouts that were tried.
        root: the folder that was searched.
    """
    if not root.is_dir():
        return DatasetError(f"There is no folder {root}, where {what} was to be read.")
    near = [candidate for candidate in tried if candidate.images.is_dir() or candidate.labels.is_dir()]
    near = near or [candidate for candidate in tried if candidate.home == root / candidate.layout.homes[0]]
    looked = "; ".join(dict.fromkeys(path for candidate in near for path in candidate.searched_paths(root)))
    return DatasetError(f"{what} is not under {root}. Looked for: {looked}. The folder holds {_content(root)}.")


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files below a folder by key, the name without its suffix.

    Hidden files, which archives leave behind, are left out. Raises DatasetError when two files have the same key.
    """
    files: dict[str, Path] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is None or name.startswith("."):
                continue
            key, path = name[: -len(suffix)], Path(parent, name)
            if key.endswith(_CONVERTED):
                continue
            if key in files:
                raise DatasetError(f"{files[key]} and {path} have one name, so it is unclear which is meant.")
            files[key] = path
    return files


def _state(folder: Path, suffixes: tuple[str, ...], root: Path) -> str:
    wanted = folder.relative_to(root) / f"*{suffixes[0]}"
    if not folder.is_dir():
        return f"{wanted} (absent)"
    if count := len(_files(folder, suffixes)):
        return f"{wanted} ({count} found)"
    return f"{wanted} (none, but {_content(folder)})"


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    rest = len(names) - _LISTED
    return (", ".join(names[:_LISTED]) or "nothing") + (f" and {rest} more" if rest > 0 else "")
