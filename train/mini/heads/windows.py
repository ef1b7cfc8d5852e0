"""Windows of labelled photos and what the frozen image tower says of them, in files (`train.common.feature_cache`).

The tower takes most of the time of a training step, and it is frozen: so a fixed number of windows of each photo is
encoded once, each at a random scale, and every run on the same photos reads them.
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
from ovseg_demo.models.mini.towers import ImageTower
from train.common.feature_cache import FeatureCache
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.mini import views

STRIDE = ImageTower.STRIDES[0]
"""Distance of the labelled places in pixels."""

_MAPS = tuple(f"stride {stride}" for stride in ImageTower.STRIDES)


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


class WindowFeatures:
    """Windows of the photos of labelled sets, in a file each; only missing files are computed.

    A window depends on the name of its set, the key of its photo and its number alone. So a part of the photos, such as
    one half or those of a restricted run, finds its windows among those of all photos.

    Args:
        labelled: the sets.
        tower: the frozen image tower.
        sizes: which windows are cut.
        path: folder of the files.

    Raises:
        DatasetError: when a photo or its labels cannot be read.
        TrainingError: when a file cannot be written, or the folder holds other windows.
    """

    def __init__(self, labelled: Sequence[LabelledSet], tower: ImageTower, sizes: WindowSizes, path: Path) -> None:
        photos = {source.name: len(source.dataset) for source in labelled}
        self._cache = FeatureCache(RunFolder(path, {"photos": photos, **asdict(sizes)}), ("labels", *_MAPS))
        self._counts = {source.name: sizes.count(len(source.dataset)) for source in labelled}
        for source in labelled:
            for sample in tqdm(source.dataset, desc=f"windows of {source.name}", unit="photo", disable=None):
                names = [_file_name(source.name, sample.key, number) for number in range(self._counts[source.name])]
                if missing := [name for name in names if name not in self._cache]:
                    self._store(source, sample, missing, tower, sizes)

    def draw(self, source: LabelledSet, sample: Sample, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        """One of the windows of a photo, mirrored half of the time.

        Args:
            source: the set.
            sample: the photo.
            generator: source of all randomness.

        Returns:
            The image tower's maps, float32 (1, C, side / s, side / s) for each of its strides s, and the labels of the
            places at stride 4, int64 (side / 4, side / 4), class indices or IGNORE. The maps of a mirrored window are
            the mirrored maps, which are nearly the same.

        Raises:
            TrainingError: when the file of the window is missing or damaged.
        """
        number = int(torch.randint(self._counts[source.name], (), generator=generator))
        stored = self._cache.load(_file_name(source.name, sample.key, number))
        maps, labels = [stored[name].float()[None] for name in _MAPS], stored["labels"].long()
        if torch.rand((), generator=generator) < 0.5:
            return [level.flip(3) for level in maps], labels.flip(1)
        return maps, labels

    def _store(
        self, source: LabelledSet, sample: Sample, names: Sequence[str], tower: ImageTower, sizes: WindowSizes
    ) -> None:
        image, labels = source.load(sample)
        for name in names:
            generator = torch.Generator().manual_seed(_seed(name))
            pixels, cut = views.random_window(image, labels, sizes.side, sizes.longest, generator)
            with torch.inference_mode():
                maps = [level[0].half().cpu().contiguous() for level in tower.pyramid(pixels)]
            centres = torch.from_numpy(cut[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].astype(np.int16))
            self._cache.store(name, {"labels": centres, **dict(zip(_MAPS, maps, strict=True))})


def _file_name(set_name: str, key: str, number: int) -> str:
    return f"{set_name}-{key}-{number}"


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:7])
