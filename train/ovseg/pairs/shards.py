"""Mask-word pairs as WebDataset shards: written whole or not at all, streamed by any reader of that format, and read
here in any order, because the batch of a training step must follow from the step.

    pairs-000000.tar: PHOTO-PAIR.jpg    the tight crop of the region, not filled
                      PHOTO-PAIR.png    its mask, one bit a pixel
                      PHOTO-PAIR.json   word, caption, score, photo, box

Crop and mask lie apart so that the fill is chosen where the pair is used: the released training data is filled with
ImageNet's mean colour, while the released model fills with CLIP's.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ovseg_demo.runtime.files import write_atomically
from train.common.run_folder import RunFolder, TrainingError
from train.ovseg.pairs.optional_libraries import import_optional

WRITER = "webdataset"
"""The library that writes shards; reading needs none."""

_SUFFIXES = ("jpg", "png", "json")
_QUALITY = 95


@dataclass(frozen=True)
class Pair:
    """A region and its word.

    Attributes:
        word: what the region shows.
        caption: the sentence that the word is from; empty where a person named the region.
        score: the matching model's logit, to three digits; 1 where a person named the region.
        photo: "SET/KEY".
        box: x0, y0, x1, y1 of the region in the photo as the models see it; x1 and y1 are exclusive.
        crop: uint8 (h, w, 3), the photo within the box.
        mask: bool (h, w).
    """

    word: str
    caption: str
    score: float
    photo: str
    box: tuple[int, int, int, int]
    crop: np.ndarray
    mask: np.ndarray


def shard_path(folder: RunFolder, number: int) -> Path:
    """Where a shard lies once it is whole."""
    return folder.path / f"pairs-{number:06d}.tar"


def write_shards(folder: RunFolder, number: int, pairs: Mapping[int, Sequence[Pair]]) -> None:
    """Write a shard of the pairs of some photos, by photo number, in one go. Raises TrainingError."""
    writer = import_optional(WRITER).TarWriter
    samples = [
        {"__key__": f"{photo:08d}-{index:03d}", **_encoded(pair)}
        for photo, found in pairs.items()
        for index, pair in enumerate(found)
    ]

    def write(file: BinaryIO) -> None:
        with writer(file, encoder=False, mtime=0) as tar:
            for sample in samples:
                tar.write(sample)

    with folder.writing():
        write_atomically(shard_path(folder, number), write)


class PairShards:
    """The pairs of all shards of a folder. Only where they lie is kept in memory; processes may share one.

    Attributes:
        photos: int64 (N,), the number of the photo of each pair.
        places: int64 (N, 3, 2), where in its shard each of a pair's files begins, and its size in bytes.

    Raises TrainingError when there are none, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("pairs-*.tar"))
        found = [_listed(path) for path in self._paths]
        self.photos = np.concatenate([photos for photos, _ in found] or [np.empty(0, np.int64)])
        if not len(self.photos):
            raise TrainingError(f"{folder} holds no pairs.")
        self.places = np.concatenate([places for _, places in found])
        self._shards = np.repeat(np.arange(len(found)), [len(photos) for photos, _ in found])

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Pair:
        """A pair, read from its shard."""
        crop, mask, facts = (self._member(index, which) for which in range(len(_SUFFIXES)))
        try:
            pixels, inside = (np.array(Image.open(io.BytesIO(data))) for data in (crop, mask))
            return Pair(crop=pixels, mask=inside.astype(bool), **_facts(facts))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(self._paths[self._shards[index]]) from error

    def facts(self, index: int) -> dict[str, Any]:
        """What Pair has of a pair less its pixels."""
        return _facts(self._member(index, _SUFFIXES.index("json")))

    def _member(self, index: int, which: int) -> bytes:
        offset, size = self.places[index, which].tolist()
        with self._paths[self._shards[index]].open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _encoded(pair: Pair) -> dict[str, bytes]:
    crop, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(pair.crop).save(crop, "JPEG", quality=_QUALITY, subsampling=0)
    Image.fromarray(pair.mask).save(mask, "PNG")
    facts = {name: getattr(pair, name) for name in ("word", "caption", "score", "photo", "box")}
    return {"jpg": crop.getvalue(), "png": mask.getvalue(), "json": json.dumps(facts).encode()}


def _facts(content: bytes) -> dict[str, Any]:
    facts = json.loads(content)
    return facts | {"box": tuple(facts["box"])}


def _listed(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    """Photo numbers, int64 (n,), and the offset and size of each file of each pair, int64 (n, files, 2)."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = (member.offset_data, member.size)
        places = [[parts[suffix] for suffix in _SUFFIXES] for parts in found.values()]
        photos = [int(key.partition("-")[0]) for key in found]
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise _damaged(shard) from error
    return np.array(photos, np.int64), np.array(places, np.int64).reshape(-1, len(_SUFFIXES), 2)


def _damaged(shard: Path) -> TrainingError:
    return TrainingError(f"{shard} is damaged; delete it, and python -m train.ovseg.pairs makes it again.")
