"""Photos with captions: folders of photos, and WebDataset shards.

DATA/NAME_train/images/KEY.jpg + captions.json     {"KEY": ["a caption", ...]}; each caption is a sample
DATA/NAME_train/*.tar                              KEY.jpg and KEY.txt, one caption, as img2dataset writes them
"""

from bisect import bisect_right
from pathlib import Path
from typing import Protocol

import numpy as np

from eval.datasets.base import DatasetError
from ovseg_demo import image
from ovseg_demo.errors import ImageError
from train.common import image_sets
from train.common.image_sets import DescribedSet
from train.common.shards import TarShards


class CaptionedPhotos(Protocol):
    """Pairs of a photo and one of its captions.

    Attributes:
        name: unique among the sets of a run.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        """A photo, uint8 (H, W, 3), RGB, and a caption. Raises UserError when they cannot be read."""
        ...


class FolderPairs:
    """The pairs of a set with captions; each caption makes one.

    Args:
        source: the set.
    """

    def __init__(self, source: DescribedSet) -> None:
        self.name, self._source = source.name, source
        self._ends = np.cumsum([len(texts) for texts in source.texts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        photo = bisect_right(self._ends, index)
        caption = self._source.texts[photo][index - int(self._ends[photo])]  # from the end of the photo's texts
        return image_sets.open_photo(self._source.photos[photo]).pixels, caption


class ShardPairs:
    """The pairs of the shards of a folder.

    Args:
        folder: holds the tar files.
        limit: only the first so many pairs; None for all.

    Raises:
        TrainingError: when a shard is damaged, or a sample has no photo or no caption.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.name = f"{folder.name}-shards" if (folder / "captions.json").exists() else folder.name
        self._shards = TarShards(sorted(folder.glob("*.tar")), ("jpg", "txt"))
        self._count = len(self._shards) if limit is None else min(limit, len(self._shards))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        shards = self._shards
        try:
            return image.load(shards.read(index, "jpg")).pixels, shards.read(index, "txt").decode().strip()
        except (ImageError, UnicodeDecodeError) as error:
            raise DatasetError(f"{shards.keys[index]} in {shards.path(index)} cannot be used: {error}") from error


def captioned_sets(data: Path, limit: int | None = None) -> list[CaptionedPhotos]:
    """The sets of a folder that have captions, in the order of their names.

    Args:
        data: folder that holds the folders NAME_train; of a folder with masks the held-out photos are left out.
        limit: only the first so many photos of each set; None for all.

    Raises:
        DatasetError: when there is no such set, or a set is broken.
        TrainingError: when a shard is damaged.
    """
    folders: list[CaptionedPhotos] = [
        FolderPairs(source) for source in image_sets.described_sets(data, limit, kinds=("captions",))
    ]
    paths = sorted({path.parent for path in data.glob("*_train/*.tar")})
    shards: list[CaptionedPhotos] = [pairs for path in paths if len(pairs := ShardPairs(path, limit))]
    if not folders and not shards:
        raise DatasetError(f"{data} holds no folder NAME_train with images/ and captions.json, or with shards (*.tar).")
    return sorted([*folders, *shards], key=lambda pairs: pairs.name)
