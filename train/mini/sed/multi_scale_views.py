"""Features of the frozen mini model for labelled photos at three sizes, one file a photo (`train.mini.feature_cache`).

The whole photo is encoded, as in the demo, at a randomly drawn size of its own.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eval.datasets.base import Sample
from ovseg_demo.methods.sed.mini import MultiScaleFeatures, encode_at_scales
from ovseg_demo.models.mini.model import DenseFeatures, MiniModel
from ovseg_demo.models.mini.towers import ImageTower
from train.common.image_sets import LabelledSet, resize_labels
from train.common.run_folder import RunFolder
from train.mini.feature_cache import FeatureCache

LONGEST = (352, 576)
"""Smallest and largest longest side of a photo in pixels; the demo's is 512."""

STRIDE = ImageTower.STRIDES[0]

_NAMES = tuple(field.name for field in fields(MultiScaleFeatures))

_MAPS = 3
"""Of the middle size, which alone has maps."""

_TENSORS = (
    "labels",
    *(f"{name} {part}" for name in _NAMES for part in ("anchors", "places")),
    *(f"middle map {number}" for number in range(_MAPS)),
)
"""What a file holds."""


class MultiScaleViews:
    """Features of the photos of some sets in files of some 20 MB each; files that exist are not computed again.

    Args:
        labelled: the sets.
        vlm: the mini model, which encodes the photos.
        folder: holds the files.
    """

    def __init__(self, labelled: Sequence[LabelledSet], vlm: MiniModel, folder: RunFolder) -> None:
        self._cache = FeatureCache(folder, _TENSORS)
        self._names = [source.name for source in labelled]
        for source in labelled:
            bar = tqdm(source.dataset, desc=f"views of {source.name}", unit="photo", disable=None)
            for number, sample in enumerate(bar):
                if (name := _file_name(source.name, number)) not in self._cache:
                    self._cache.store(name, _encode(source, number, sample, vlm))

    def draw(self, number: int, photo: int, generator: torch.Generator) -> tuple[MultiScaleFeatures, Tensor]:
        """A photo of a set, mirrored half of the time, and the labels of its places of stride 4, int64 (h, w).

        Args:
            number: of the set.
            photo: its number in the set.
            generator: decides whether the photo is mirrored.

        Raises:
            TrainingError: when the file of the photo is missing or damaged.
        """
        stored = self._cache.load(_file_name(self._names[number], photo))
        readings, labels = _readings(stored), stored["labels"].long()
        if torch.rand((), generator=generator) < 0.5:
            return mirror(readings), labels.flip(1)
        return readings, labels


def _file_name(set_name: str, photo: int) -> str:
    return f"{set_name}-{photo}"


def _encode(source: LabelledSet, number: int, sample: Sample, vlm: MiniModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    longest = int(torch.randint(LONGEST[0], LONGEST[1] + 1, (), generator=generator))
    image, labels = source.load(sample)
    readings = encode_at_scales(vlm, image, longest)
    return _tensors(readings, labels_at_stride(labels, readings))


def labels_at_stride(labels: np.ndarray, readings: MultiScaleFeatures) -> Tensor:
    """The labels, int32 (H, W), at the centres of the places of the middle reading, int16 (h, w)."""
    height, width = readings.middle.dense.shape[:2]
    fine = resize_labels(labels, (STRIDE * height, STRIDE * width))
    return torch.from_numpy(fine[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].astype(np.int16))


def mirror(readings: MultiScaleFeatures) -> MultiScaleFeatures:
    """Left and right swapped: nearly what would be known of the mirrored photo."""
    return MultiScaleFeatures(*(_flipped(getattr(readings, name)) for name in _NAMES))


def _flipped(features: DenseFeatures) -> DenseFeatures:
    maps = tuple(level.flip(2) for level in features.maps)
    return DenseFeatures(features.anchors.flip(1), features.dense.flip(1), maps)


def _tensors(readings: MultiScaleFeatures, labels: Tensor) -> dict[str, Tensor]:
    made = {"labels": labels}
    for name in _NAMES:
        features = getattr(readings, name)
        made |= {f"{name} anchors": features.anchors, f"{name} places": features.dense}
        made |= {f"{name} map {number}": level for number, level in enumerate(features.maps)}
    return {name: value.contiguous() for name, value in made.items()}


def _readings(stored: dict[str, Tensor]) -> MultiScaleFeatures:
    maps = tuple(stored[f"middle map {number}"] for number in range(_MAPS))
    return MultiScaleFeatures(
        *(
            DenseFeatures(stored[f"{name} anchors"], stored[f"{name} places"], maps if name == "middle" else ())
            for name in _NAMES
        )
    )
