"""Training data: folders of photos with masks, captions or tags.

    DATA/NAME_train/images/KEY.jpg
                    masks/KEY.png + classes.json   every class of every photo is a region with a word
                    captions.json                  {"KEY": ["a caption", ...]}
                    tags.json                      {"KEY": ["a word"]}; of several words of a photo the first counts

Every folder whose name ends in "_train" is used, with every kind of label that it holds. Of a folder with masks the
photos that `eval.datasets.split` holds out are always left out, with their texts, so that these photos can measure a
trained model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval import datasets
from eval.datasets.base import Dataset, DatasetError, Sample
from eval.datasets.split import held_out
from ovseg_demo import image
from ovseg_demo.errors import ImageError
from ovseg_demo.image import Photo
from ovseg_demo.result import resize_labels

SMALLEST_REGION = 0.001
"""Smallest area of a region, as a share of the photo; smaller regions are ignored."""


@dataclass(frozen=True)
class LabelledSet:
    """Photos with the class of each pixel.

    Attributes:
        name: name of the folder, unique among the sets.
        dataset: the photos and their labels.
        training_classes: for each class of the dataset, whether it is a training target; background never is.
    """

    name: str
    dataset: Dataset
    training_classes: tuple[bool, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return self.dataset.vocabulary.names

    @property
    def keys(self) -> list[str]:
        """The keys of the photos."""
        return [sample.key for sample in self.dataset]

    def load(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """A photo, uint8 (H, W, 3), and its labels, int32 (H, W), class indices or IGNORE.

        Raises:
            DatasetError: when the photo or its label file cannot be read, or the two differ in size.
        """
        photo, labels = open_photo(sample.image), self.dataset.load_labels(sample)
        if photo.original_size != labels.shape:
            raise DatasetError(
                f"{sample.image} and {sample.labels} differ in size: {photo.original_size}, {labels.shape}."
            )
        return photo.pixels, resize_labels(labels, photo.pixels.shape[:2])


@dataclass(frozen=True)
class DescribedSet:
    """Photos with texts.

    Attributes:
        name: name of the folder, unique among the sets; it ends in the kind of the texts where the folder has other
            labels too.
        photos: paths of the photos.
        texts: the texts of each photo.
        tags: whether the texts are tags, single words that many photos share, instead of captions.
    """

    name: str
    photos: tuple[Path, ...]
    texts: tuple[tuple[str, ...], ...]
    tags: bool


def find_sets(data: Path, limit: int | None = None) -> tuple[list[LabelledSet], list[DescribedSet]]:
    """The labelled and the described sets of a folder, in the order of their names, without those that have no photo.

    Args:
        data: folder that holds the folders NAME_train.
        limit: only the first so many photos of each set; None for all.

    Raises:
        DatasetError: when no set has masks, or a set is broken.
    """
    labelled, described = labelled_sets(data, limit), described_sets(data, limit)
    if not labelled:
        raise DatasetError(f"{data} holds no folder NAME_train with images/, masks/ and classes.json to learn from.")
    return labelled, described


def labelled_sets(data: Path, limit: int | None = None) -> list[LabelledSet]:
    """The sets with masks, in the order of their names, without sets that have no photo.

    Args:
        data: folder that holds the folders NAME_train.
        limit: only the first so many photos of each set; None for all.

    Raises:
        DatasetError: when a set is broken.
    """
    sets = [_labelled(path, limit) for path in _folders(data) if (path / "masks").is_dir()]
    return [source for source in sets if len(source.dataset)]


def described_sets(
    data: Path, limit: int | None = None, kinds: Sequence[str] = ("captions", "tags")
) -> list[DescribedSet]:
    """The sets with texts, in the order of their names, without sets that have no photo.

    Args:
        data: folder that holds the folders NAME_train.
        limit: only the first so many photos of each set; None for all.
        kinds: kinds of texts, "captions" and "tags"; a folder with both is two sets.

    Raises:
        DatasetError: when a set is broken.
    """
    sets = [
        _described(path, kind, limit) for path in _folders(data) for kind in kinds if (path / f"{kind}.json").exists()
    ]
    return [source for source in sets if source.photos]


def _folders(data: Path) -> list[Path]:
    return sorted(path for path in data.glob("*_train") if path.is_dir())


def open_photo(path: Path) -> Photo:
    """A photo. Raises DatasetError that names the path of the photo when it cannot be read."""
    try:
        return image.load(path)
    except ImageError as error:
        raise DatasetError(f"The photo {path} cannot be used: {error}") from error


def _labelled(path: Path, limit: int | None) -> LabelledSet:
    dataset = datasets.open_dataset("folder", path)
    kept = [sample for sample in dataset if not held_out(sample.key)]
    trained = tuple(index != dataset.background for index in range(len(dataset.vocabulary)))
    return LabelledSet(path.name, replace(dataset, samples=tuple(kept[:limit])), trained)


def _described(path: Path, kind: str, limit: int | None) -> DescribedSet:
    file, tags = path / f"{kind}.json", kind == "tags"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(table, dict) or not all(map(_is_texts, table.values())):
        raise DatasetError(f"{file} does not hold lists of texts by key.")
    labelled = (path / "masks").is_dir()
    keys = [key for key in sorted(table) if table[key] and not (labelled and held_out(key))][:limit]
    has_other_labels = labelled or (tags and (path / "captions.json").exists())
    return DescribedSet(
        f"{path.name}-{kind}" if has_other_labels else path.name,
        tuple(path / "images" / f"{key}.jpg" for key in keys),
        tuple(tuple(table[key]) for key in keys),
        tags,
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)
