"""Features of the frozen mini model for labelled photos at three sizes (`train.common.feature_cache`), a file a photo.

Each photo is encoded whole, as in the demo; its middle size is drawn at random.
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
from ovseg_demo.result import resize_labels
from train.common.feature_cache import FeatureCache
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder

LONGEST = (352, 576)
"""Smallest and largest longest side of a photo in pixels; the demo's is 512."""

STRIDE = ImageTower.STRIDES[0]

_NAMES = tuple(field.name for field in fields(MultiScaleFeatures))

_MAPS = 3
"""Number of the feature maps of the middle size; the other sizes have none."""

_TENSORS = (
    "labels",
    *(f"{name} {part}" for name in _NAMES for part in ("anchors", "places")),
    *(f"middle map {number}" for number in range(_MAPS)),
)
"""Names of the tensors of a file."""


class MultiScaleViews:
    """Features of the photos of labelled sets in files of about 20 MB each; only missing files are computed.

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
        """The features of a photo, mirrored half of the time, and the labels of its places at stride 4, int64 (h, w).

        Args:
            number: number of the set.
            photo: number of the photo in the set.
            generator: decides whether the photo is mirrored.

        Raises:
            TrainingError: when the file of the photo is missing or damaged.
        """
        stored = self._cache.load(_file_name(self._names[number], photo))
        scales, labels = _features_of(stored), stored["labels"].long()
        if torch.rand((), generator=generator) < 0.5:
            return mirror(scales), labels.flip(1)
        return scales, labels


def _file_name(set_name: str, photo: int) -> str:
    return f"{set_name}-{photo}"


def _encode(source: LabelledSet, number: int, sample: Sample, vlm: MiniModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    longest = int(torch.randint(LONGEST[0], LONGEST[1] + 1, (), generator=generator))
    image, labels = source.load(sample)
    scales = encode_at_scales(vlm, image, longest)
    return _tensors(scales, labels_at_stride(labels, scales))


def labels_at_stride(labels: np.ndarray, scales: MultiScaleFeatures) -> Tensor:
    """The labels at the centres of the places at stride 4 of the middle size, int16 (h, w).

    Args:
        labels: int32 (H, W), at the size of the photo.
        scales: the features of the photo, of which the middle size counts.
    """
    height, width = scales.middle.dense.shape[:2]
    fine = resize_labels(labels, (STRIDE * height, STRIDE * width))
    return torch.from_numpy(fine[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].astype(np.int16))


def mirror(scales: MultiScaleFeatures) -> MultiScaleFeatures:
    """The features with left and right swapped, which are nearly the features of the mirrored photo."""
    return MultiScaleFeatures(*(_flipped(getattr(scales, name)) for name in _NAMES))


def _flipped(features: DenseFeatures) -> DenseFeatures:
    maps = tuple(level.flip(2) for level in features.maps)
    return DenseFeatures(features.anchors.flip(1), features.dense.flip(1), maps)


def _tensors(scales: MultiScaleFeatures, labels: Tensor) -> dict[str, Tensor]:
    tensors = {"labels": labels}
    for name in _NAMES:
        features = getattr(scales, name)
        tensors |= {f"{name} anchors": features.anchors, f"{name} places": features.dense}
        tensors |= {f"{name} map {number}": level for number, level in enumerate(features.maps)}
    return {name: value.contiguous() for name, value in tensors.items()}


def _features_of(stored: dict[str, Tensor]) -> MultiScaleFeatures:
    maps = tuple(stored[f"middle map {number}"] for number in range(_MAPS))
    return MultiScaleFeatures(
        *(
            DenseFeatures(stored[f"{name} anchors"], stored[f"{name} places"], maps if name == "middle" else ())
            for name in _NAMES
        )
    )
