"""Mask-word pairs as WebDataset shards: written whole or not at all, and streamed by any reader of that format.

    pairs-000000.tar: PHOTO-PAIR.jpg    the tight crop of the region, not filled
                      PHOTO-PAIR.png    its mask, one bit a pixel
                      PHOTO-PAIR.json   word, caption, score, photo, box

Crop and mask are separate files, so that the reader of a pair can choose the fill outside the mask: the released
training data is filled with ImageNet's mean colour, while the released model fills with CLIP's mean colour.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ovseg_demo.runtime.files import write_atomically
from train.common.run_folder import RunFolder, TrainingError
from train.common.shards import TarShards
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
        caption: the sentence that the word is from; empty where an annotator named the region.
        score: the matching model's logit, to three digits; 1 where an annotator named the region.
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
    """The path of the shard with this number, from 0."""
    return folder.path / f"pairs-{number:06d}.tar"


def write_shards(folder: RunFolder, number: int, pairs: Mapping[int, Sequence[Pair]]) -> None:
    """Write a shard atomically.

    Args:
        folder: folder of the run.
        number: number of the shard, from 0.
        pairs: the pairs of each photo by the number of the photo.

    Raises:
        TrainingError: when the shard cannot be written, or webdataset is not installed.
    """
    writer = import_optional(WRITER).TarWriter
    samples = [
        {"__key__": f"{photo:08d}-{index:03d}", **_encoded(pair)}
        for photo, pairs_of_photo in pairs.items()
        for index, pair in enumerate(pairs_of_photo)
    ]

    def write(file: BinaryIO) -> None:
        with writer(file, encoder=False, mtime=0) as tar:
            for sample in samples:
                tar.write(sample)

    with folder.writing():
        write_atomically(shard_path(folder, number), write)


class PairShards:
    """The pairs of all shards of a folder, in random access.

    Args:
        folder: folder of the shards.

    Attributes:
        photos: int64 (N,), the number of the photo of each pair.
        places: int64 (N, 3, 2), the offset in its shard and the size of each of a pair's three files, in bytes.

    Raises:
        TrainingError: when there are no shards, or a shard is damaged.
    """

    def __init__(self, folder: Path) -> None:
        advice = "; delete it, and python -m train.ovseg.pairs makes it again"
        self._shards = TarShards(sorted(folder.glob("pairs-*.tar")), _SUFFIXES, advice)
        self.places = self._shards.places
        if not len(self._shards):
            raise TrainingError(f"{folder} holds no pairs.")
        self.photos = np.array([int(key.partition("-")[0]) for key in self._shards.keys], np.int64)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Pair:
        """A pair, read from its shard. Raises TrainingError when the shard is damaged."""
        crop_file, mask_file, metadata = (self._shards.read(index, suffix) for suffix in _SUFFIXES)
        try:
            crop, mask = (np.array(Image.open(io.BytesIO(content))) for content in (crop_file, mask_file))
            return Pair(crop=crop, mask=mask.astype(bool), **_parse_metadata(metadata))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._shards.damage(index) from error

    def metadata(self, index: int) -> dict[str, Any]:
        """The attributes of `Pair` without crop and mask."""
        return _parse_metadata(self._shards.read(index, "json"))


def _encoded(pair: Pair) -> dict[str, bytes]:
    crop, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(pair.crop).save(crop, "JPEG", quality=_QUALITY, subsampling=0)
    Image.fromarray(pair.mask).save(mask, "PNG")
    metadata = {name: getattr(pair, name) for name in ("word", "caption", "score", "photo", "box")}
    return {"jpg": crop.getvalue(), "png": mask.getvalue(), "json": json.dumps(metadata).encode()}


def _parse_metadata(content: bytes) -> dict[str, Any]:
    metadata = json.loads(content)
    return metadata | {"box": tuple(metadata["box"])}
