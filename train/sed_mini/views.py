"""What the mini model knows of each labelled photo: made once, kept in files, read at every step.

A photo is seen whole, as the demo sees it, at a size of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from eval.datasets.base import Sample
from ovseg_demo.vlm.mini import MiniVLM, PhotoFeatures, prepared
from ovseg_demo.vlm.mini.towers import ImageTower
from train.common.folder import RunFolder, TrainingError
from train.common.sources import Labelled, resized

LONGEST = (352, 576)
"""Pixels of the longest side, from and to; the demo's is 512."""

STRIDE = ImageTower.STRIDES[0]


class Views:
    """Views of the photos of some sets, each a file of some 7 MB. Those that are there are not made again.

    Args:
        labelled: the sets.
        vlm: reads the photos.
        folder: of the files.
    """

    def __init__(self, labelled: Sequence[Labelled], vlm: MiniVLM, folder: RunFolder) -> None:
        self._folder = folder
        self._sets = [(source.name, len(source.dataset)) for source in labelled]
        for source in labelled:
            bar = tqdm(source.dataset, desc=f"views of {source.name}", unit="photo", disable=None)
            for number, sample in enumerate(bar):
                if not self._path(source.name, number).exists():
                    self._make(source, number, sample, vlm)

    def draw(self, which: int, generator: torch.Generator) -> tuple[PhotoFeatures, Tensor]:
        """A photo of a set, mirrored half of the time, and the labels of its places of stride 4, int64 (h, w).

        Raises TrainingError for a damaged file.
        """
        name, photos = self._sets[which]
        path = self._path(name, int(torch.randint(photos, (), generator=generator)))
        try:
            stored = load_file(path)
            maps = tuple(stored[f"map {number}"] for number in range(3))
            features, labels = PhotoFeatures(stored["anchors"], stored["places"], maps), stored["labels"].long()
        except (SafetensorError, OSError, KeyError) as error:
            raise TrainingError(f"{path} is damaged; delete it, and it is made again.") from error
        if torch.rand((), generator=generator) < 0.5:
            return mirrored(features), labels.flip(1)
        return features, labels

    def _path(self, name: str, photo: int) -> Path:
        return self._folder.path / f"{name}-{photo}.safetensors"

    def _make(self, source: Labelled, number: int, sample: Sample, vlm: MiniVLM) -> None:
        generator = torch.Generator().manual_seed(number)
        longest = int(torch.randint(LONGEST[0], LONGEST[1] + 1, (), generator=generator))
        pixels, places = seen(*source.load(sample), longest)
        made = _tensors(vlm.embed_pixels(pixels), places)
        self._folder.replace(self._path(source.name, number).name, lambda file: file.write(save(made)))


def seen(image: np.ndarray, labels: np.ndarray, longest: int) -> tuple[Tensor, Tensor]:
    """A photo as the mini model reads it, but at another size, float32 (1, 3, H', W'), with the labels of its places.

    Args:
        image: uint8 (H, W, 3).
        labels: int32 (H, W); the result, int16 (H' / 4, W' / 4), has those at the centres of the places.
        longest: pixels of the longest side.
    """
    pixels = prepared(image, longest)
    centres = resized(labels, tuple(pixels.shape[2:]))[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    return pixels, torch.from_numpy(centres.astype(np.int16))


def mirrored(features: PhotoFeatures) -> PhotoFeatures:
    """Left and right swapped: nearly what would be known of the mirrored photo."""
    maps = tuple(level.flip(2) for level in features.maps)
    return PhotoFeatures(features.anchors.flip(1), features.places.flip(1), maps)


def _tensors(features: PhotoFeatures, places: Tensor) -> dict[str, Tensor]:
    made = {"anchors": features.anchors, "places": features.places, "labels": places}
    made |= {f"map {number}": level for number, level in enumerate(features.maps)}
    return {name: value.contiguous() for name, value in made.items()}
