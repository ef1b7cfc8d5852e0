"""Windows of labelled photos and what the frozen half of the mini model says of them, in files, one a window.

The image tower takes most of the time of a training step, and it is frozen: so a fixed number of windows of each photo
is encoded once, each at a random scale, and every run on the same photos reads them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eval.datasets.base import Sample
from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.towers import ImageTower
from train.common.feature_cache import FeatureCache
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.mini import views

STRIDE = ImageTower.STRIDES[0]
"""Distance of the labelled places in pixels."""

MAPS = (*(f"stride {stride}" for stride in ImageTower.STRIDES), "anchors")
"""Names of the maps of a window: the image tower's at each stride, and the weights of the anchors at the last one."""


@dataclass(frozen=True)
class WindowSizes:
    """Which windows are cut from the photos.

    Attributes:
        side: side of a window in pixels, a multiple of 32.
        longest: smallest and largest longest side of the scaled photo, in pixels; the demo's are 256 to 1024.
        of_set: about the number of windows of a set, so that a small set is seen in more ways.
        of_photo: smallest and largest number of windows of one photo.
    """

    side: int = 384
    longest: tuple[int, int] = (288, 960)
    of_set: int = 800
    of_photo: tuple[int, int] = (2, 8)

    def count(self, photos: int) -> int:
        """The number of windows of each photo of a set of `photos` photos, 1 or more."""
        return min(max(self.of_set // photos, self.of_photo[0]), self.of_photo[1])


SMOKE_WINDOWS = WindowSizes(side=128, of_photo=(1, 2))


class WindowFeatures:
    """Windows of the photos of labelled sets, in a file each; only missing files are computed.

    A window depends on the name of its set, the key of its photo and its number alone. So a part of the photos, such as
    one half or those of a restricted run, finds its windows among those of all photos.

    Attributes:
        anchors: the untrained half of the mini model.

    Args:
        labelled: the sets.
        tower: the frozen image tower.
        anchors: see the attribute.
        sizes: which windows are cut.
        path: folder of the files.

    Raises:
        DatasetError: when a photo or its labels cannot be read.
        TrainingError: when a file cannot be written, or the folder holds other windows.
    """

    def __init__(
        self, labelled: Sequence[LabelledSet], tower: ImageTower, anchors: Anchors, sizes: WindowSizes, path: Path
    ) -> None:
        self.anchors, self._tower, self._sizes = anchors, tower, sizes
        photos = {source.name: len(source.dataset) for source in labelled}
        self._cache = FeatureCache(RunFolder(path, {"photos": photos, **asdict(sizes)}), ("labels", *MAPS))
        self._counts = {source.name: sizes.count(len(source.dataset)) for source in labelled}
        for source in labelled:
            for sample in tqdm(source.dataset, desc=f"windows of {source.name}", unit="photo", disable=None):
                names = [_file_name(source.name, sample.key, number) for number in range(self._counts[source.name])]
                if missing := [name for name in names if name not in self._cache]:
                    self._store(source, sample, missing)

    def draw(self, source: LabelledSet, sample: Sample, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """One of the windows of a photo, mirrored half of the time.

        Args:
            source: the set.
            sample: the photo.
            generator: source of all randomness.

        Returns:
            The MAPS by name, float32 (1, C, side / s, side / s) at stride s, and the labels of the places at stride 4,
            int64 (side / 4, side / 4), class indices or IGNORE. The maps of a mirrored window are the mirrored maps,
            which are nearly the same.

        Raises:
            TrainingError: when the file of the window is missing or damaged.
        """
        number = int(torch.randint(self._counts[source.name], (), generator=generator))
        stored = self._cache.load(_file_name(source.name, sample.key, number))
        maps, labels = {name: stored[name].float()[None] for name in MAPS}, stored["labels"].long()
        if torch.rand((), generator=generator) < 0.5:
            return {name: level.flip(3) for name, level in maps.items()}, labels.flip(1)
        return maps, labels

    def _store(self, source: LabelledSet, sample: Sample, names: Sequence[str]) -> None:
        image, labels = source.load(sample)
        for name in names:
            self._cache.store(name, self._encode(image, labels, torch.Generator().manual_seed(_seed(name))))

    @torch.inference_mode()
    def _encode(self, image: np.ndarray, labels: np.ndarray, generator: torch.Generator) -> dict[str, Tensor]:
        """The MAPS of a random window in half precision, and "labels", its labels at stride 4."""
        pixels, cut = views.random_window(image, labels, self._sizes.side, self._sizes.longest, generator)
        pyramid = self._tower.pyramid(pixels)
        levels = *pyramid, self.anchors.weights_of_map(self._tower, pyramid[-1])
        maps = {name: level[0].half().cpu().contiguous() for name, level in zip(MAPS, levels, strict=True)}
        return {"labels": torch.from_numpy(cut[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].astype(np.int16)), **maps}


def _file_name(set_name: str, key: str, number: int) -> str:
    return f"{set_name}-{key}-{number}"


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:7])
