"""What the mini model knows of each labelled photo: made once, kept in files, read at every step.

A photo is seen whole, as the demo sees it, at a size of its own.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from eval.datasets.base import Sample
from ovseg_demo.methods.sed.mini import MultiScaleFeatures, encode_at_scales
from ovseg_demo.models.mini.model import DenseFeatures, MiniModel
from ovseg_demo.models.mini.towers import ImageTower
from train.common.image_sets import LabelledSet, resize_labels
from train.common.run_folder import RunFolder, TrainingError

LONGEST = (352, 576)
"""Pixels of the longest side, from and to; the demo's is 512."""

STRIDE = ImageTower.STRIDES[0]

_NAMES = tuple(field.name for field in fields(MultiScaleFeatures))


class MultiScaleViews:
    """Views of the photos of some sets, each a file of some 20 MB. Those that are there are not made again.

    Args:
        labelled: the sets.
        vlm: reads the photos.
        folder: of the files.
    """

    def __init__(self, labelled: Sequence[LabelledSet], vlm: MiniModel, folder: RunFolder) -> None:
        self._folder = folder
        self._sets = [(source.name, len(source.dataset)) for source in labelled]
        for source in labelled:
            bar = tqdm(source.dataset, desc=f"views of {source.name}", unit="photo", disable=None)
            for number, sample in enumerate(bar):
                if not self._path(source.name, number).exists():
                    self._make(source, number, sample, vlm)

    def draw(self, which: int, generator: torch.Generator) -> tuple[MultiScaleFeatures, Tensor]:
        """A photo of a set, mirrored half of the time, and the labels of its places of stride 4, int64 (h, w).

        Raises TrainingError for a damaged file.
        """
        name, photos = self._sets[which]
        path = self._path(name, int(torch.randint(photos, (), generator=generator)))
        try:
            stored = load_file(path)
            readings, labels = _readings(stored), stored["labels"].long()
        except (SafetensorError, OSError, KeyError) as error:
            raise TrainingError(f"{path} is damaged; delete it, and it is made again.") from error
        if torch.rand((), generator=generator) < 0.5:
            return mirror(readings), labels.flip(1)
        return readings, labels

    def _path(self, name: str, photo: int) -> Path:
        return self._folder.path / f"{name}-{photo}.safetensors"

    def _make(self, source: LabelledSet, number: int, sample: Sample, vlm: MiniModel) -> None:
        generator = torch.Generator().manual_seed(number)
        longest = int(torch.randint(LONGEST[0], LONGEST[1] + 1, (), generator=generator))
        image, labels = source.load(sample)
        readings = encode_at_scales(vlm, image, longest)
        made = _tensors(readings, labels_at_stride(labels, readings))
        self._folder.replace(self._path(source.name, number).name, lambda file: file.write(save(made)))


def labels_at_stride(labels: np.ndarray, readings: MultiScaleFeatures) -> Tensor:
    """The labels, int32 (H, W), at the centres of the places of the middle reading, int16 (h, w)."""
    height, width = readings.middle.places.shape[:2]
    fine = resize_labels(labels, (STRIDE * height, STRIDE * width))
    return torch.from_numpy(fine[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].astype(np.int16))


def mirror(readings: MultiScaleFeatures) -> MultiScaleFeatures:
    """Left and right swapped: nearly what would be known of the mirrored photo."""
    return MultiScaleFeatures(*(_flipped(getattr(readings, name)) for name in _NAMES))


def _flipped(features: DenseFeatures) -> DenseFeatures:
    maps = tuple(level.flip(2) for level in features.maps)
    return DenseFeatures(features.anchors.flip(1), features.places.flip(1), maps)


def _tensors(readings: MultiScaleFeatures, labels: Tensor) -> dict[str, Tensor]:
    made = {"labels": labels}
    for name in _NAMES:
        features = getattr(readings, name)
        made |= {f"{name} anchors": features.anchors, f"{name} places": features.places}
        made |= {f"{name} map {number}": level for number, level in enumerate(features.maps)}
    return {name: value.contiguous() for name, value in made.items()}


def _readings(stored: dict[str, Tensor]) -> MultiScaleFeatures:
    maps = tuple(stored[f"middle map {number}"] for number in range(3))
    return MultiScaleFeatures(
        *(
            DenseFeatures(stored[f"{name} anchors"], stored[f"{name} places"], maps if name == "middle" else ())
            for name in _NAMES
        )
    )
