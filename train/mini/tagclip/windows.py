"""Features of the frozen mini model for windows of labelled photos, one file a set (`train.common.feature_cache`)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.towers import ImageTower
from train.common.feature_cache import FeatureCache
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.mini import views

SIDE = 352
"""Side of a window in pixels."""

SCALES = (400, 720)
"""Smallest and largest longest side of the scaled photos in pixels; the demo's is 512."""

STRIDE = 4
"""Stride of the labels in pixels."""

MAPS = ("anchors", "coarse", "fine")
"""Weights of the anchors at stride 32, and the image tower's maps at strides 16 and 8, as `DenseFeatures` has them."""


class WindowFeatures:
    """Features of V random windows of each of the N photos of every set, in half precision.

    Attributes:
        sets: for each set its tensors by name: "anchors" (N, V, A, 11, 11), "coarse" (N, V, 120, 22, 22), "fine"
            (N, V, 48, 44, 44), float16; "labels" (N, V, 88, 88), int16, class indices of the set or IGNORE.

    Args:
        labelled: the sets.
        count: V, the number of windows of each photo.
        tower: computes the maps of the windows.
        anchors: computes the weights of the anchors from the coarsest maps.
        folder: holds the features, one file a set.

    Raises:
        DatasetError: when a photo or its labels cannot be read.
        TrainingError: when a file is damaged or cannot be written.
    """

    def __init__(
        self, labelled: Sequence[LabelledSet], count: int, tower: ImageTower, anchors: Anchors, folder: RunFolder
    ) -> None:
        self._tower, self._anchors = tower, anchors
        cache = FeatureCache(folder, (*MAPS, "labels"))
        self.sets = [cache.get(source.name, partial(self._encode, source, count)) for source in labelled]

    @torch.inference_mode()
    def _encode(self, source: LabelledSet, count: int) -> dict[str, Tensor]:
        bar = tqdm(source.dataset, desc=f"views of {source.name}", unit="photo", disable=None)
        photos = []
        for number, sample in enumerate(bar):
            generator = torch.Generator().manual_seed(number)
            image, labels = source.load(sample)
            windows = [views.random_window(image, labels, SIDE, SCALES, generator) for _ in range(count)]
            maps = self._maps(torch.cat([pixels for pixels, _ in windows]))
            centres = [places[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].astype(np.int16) for _, places in windows]
            photos.append((*maps, torch.from_numpy(np.stack(centres))))
        return dict(zip((*MAPS, "labels"), map(torch.stack, zip(*photos, strict=True)), strict=True))

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        _, fine, coarse, last = self._tower.pyramid(pixels)
        anchors = self._anchors.weights_of_map(self._tower, last)
        return [level.half().cpu().contiguous() for level in (anchors, coarse, fine)]
