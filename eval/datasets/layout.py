"""Where the preparations of a benchmark keep its files, and finding them under a root."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.datasets.base import DatasetError, Sample
from eval.datasets.labels import Reader, Table, decoder, read_values

_CONVERTED = "TrainIds"
"""mmsegmentation keeps converted maps beside the raw ones, told apart by this ending of the stem."""

_SHOWN = 5


@dataclass(frozen=True)
class Layout:
    """How one preparation stores a benchmark.

    Attributes:
        homes: the benchmark's folder, relative to the root; "" for a root that is that folder. The first that fits
            counts, and so below.
        images, labels: folders of photos and of label files, relative to the home. Subfolders are looked into.
        table: what the label files store.
        split: files that list the keys of the benchmark, one a line, relative to the home. Where a layout has none,
            every photo and every label file belongs to the benchmark; where its files are absent, every label file.
        mixed: whether the label folder holds other splits too, so that one of the `split` files must be there.
        image_suffixes, label_suffix: what follows the key in file names.
        read: how a label file is read.
        accepts: given some label files, whether they are of this preparation, where its places alone do not tell.
    """

    homes: tuple[str, ...]
    images: tuple[str, ...]
    labels: str
    table: Table
    split: tuple[str, ...] = ()
    mixed: bool = False
    image_suffixes: tuple[str, ...] = (".jpg",)
    label_suffix: str = ".png"
    read: Reader = read_values
    accepts: Callable[[Sequence[Path]], bool] | None = None

    @property
    def decode(self) -> Callable[[Path], np.ndarray]:
        """From a label file to labels, int32 (H, W)."""
        return decoder(self.table, self.read)


@dataclass(frozen=True)
class Place:
    """A layout under one root: paths that may or may not be there."""

    layout: Layout
    home: Path
    images: Path

    @property
    def labels(self) -> Path:
        return self.home / self.layout.labels

    def photos(self) -> dict[str, Path]:
        """The photos that are there, by key; also those of other splits, where the folder holds them."""
        return _files(self.images, self.layout.image_suffixes)

    def label_files(self) -> dict[str, Path]:
        """The label files that are there, by key; with a split file, those it lists."""
        found = _files(self.labels, (self.layout.label_suffix,))
        keys = self._listed()
        if keys is None:
            return {} if self.layout.mixed else found
        return {key: found[key] for key in keys if key in found}

    def samples(self) -> tuple[Sample, ...]:
        """The benchmark's images, sorted by key; none unless at least one photo and its label file are there.

        A photo without label file, or the reverse, is a sample with a path to where the other should be.
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
        """Either path may be missing; a subfolder of the one is expected for the other."""
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

    def described(self, root: Path) -> Iterator[str]:
        """What is looked for, path by path, each with what is there."""
        yield _state(self.images, self.layout.image_suffixes, root)
        yield _state(self.labels, (self.layout.label_suffix,), root)
        if self.layout.mixed and self._listed() is None:
            yield f"{(self.home / self.layout.split[0]).relative_to(root)} (absent)"


def places(layouts: Sequence[Layout], root: Path) -> list[Place]:
    """Every place to look at, most likely first."""
    return [
        Place(layout, root / home, root / home / images)
        for layout in layouts
        for home in layout.homes
        for images in layout.images
    ]


def find(what: str, layouts: Sequence[Layout], root: Path) -> tuple[Layout, tuple[Sample, ...]]:
    """The first layout that is under `root`, with its samples.

    Raises DatasetError saying where was looked for `what`, and what is there.
    """
    candidates = places(layouts, root)
    for place in candidates:
        if samples := place.samples():
            return place.layout, samples
    raise absent(what, candidates, root)


def absent(what: str, candidates: Sequence[Place], root: Path) -> DatasetError:
    """The error that says where was looked for `what`, and what is there."""
    if not root.is_dir():
        return DatasetError(f"There is no folder {root}, where {what} was to be read.")
    near = [place for place in candidates if place.images.is_dir() or place.labels.is_dir()]
    near = near or [place for place in candidates if place.home == root / place.layout.homes[0]]
    looked = "; ".join(dict.fromkeys(path for place in near for path in place.described(root)))
    return DatasetError(f"{what} is not under {root}. Looked for: {looked}. The folder holds {_content(root)}.")


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files below a folder by key, the name without its suffix. Hidden files, which archives leave behind, are not
    looked at. Raises DatasetError when two have one key."""
    found: dict[str, Path] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is None or name.startswith("."):
                continue
            key, path = name[: -len(suffix)], Path(parent, name)
            if key.endswith(_CONVERTED):
                continue
            if key in found:
                raise DatasetError(f"{found[key]} and {path} have one name, so it is unclear which is meant.")
            found[key] = path
    return found


def _state(folder: Path, suffixes: tuple[str, ...], root: Path) -> str:
    wanted = folder.relative_to(root) / f"*{suffixes[0]}"
    if not folder.is_dir():
        return f"{wanted} (absent)"
    if count := len(_files(folder, suffixes)):
        return f"{wanted} ({count} found)"
    return f"{wanted} (none, but {_content(folder)})"


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    rest = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "nothing") + (f" and {rest} more" if rest > 0 else "")
