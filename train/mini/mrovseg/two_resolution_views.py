"""Features of the frozen mini model for labelled photos at two resolutions (`train.common.feature_cache`).

Each photo is read whole, as in the demo, at a size that is drawn for the photo; a file a photo.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.methods.mrovseg.mini import read_photo
from ovseg_demo.models.mini.heads import DenseHead
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.result import resize_labels
from train.common.feature_cache import FeatureCache
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder

STRIDE = ImageTower.STRIDES[0]


class TwoResolutionViews:
    """Features of the photos of labelled sets in files of about 5 MB each; only missing files are computed.

    Args:
        labelled: the sets.
        vlm: the mini model, which encodes the photos.
        head: its dense head.
        longest: smallest and largest longest side of the global view in pixels.
        folder: holds the files.
    """

    def __init__(
        self,
        labelled: Sequence[LabelledSet],
        vlm: MiniModel,
        head: DenseHead,
        longest: tuple[int, int],
        folder: RunFolder,
    ) -> None:
        self._cache = FeatureCache(folder, ("low", "high", "labels"))
        self._names = [source.name for source in labelled]
        for source in labelled:
            bar = tqdm(source.dataset, desc=f"views of {source.name}", unit="photo", disable=None)
            for number, sample in enumerate(bar):
                if (name := f"{source.name}-{number}") not in self._cache:
                    generator = torch.Generator().manual_seed(number)
                    side = int(torch.randint(longest[0], longest[1] + 1, (), generator=generator))
                    self._cache.store(name, _encode(*source.load(sample), side, vlm, head))

    def draw(self, number: int, photo: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The views of a photo, mirrored half of the time.

        Args:
            number: number of the set.
            photo: number of the photo in the set.
            generator: decides whether the photo is mirrored.

        Returns:
            "low" and "high", features at stride 4 of the global view, float32 (W, h, w), and "labels", int64 (h, w).

        Raises:
            TrainingError: when the file of the photo is missing or damaged.
        """
        stored = self._cache.load(f"{self._names[number]}-{photo}")
        mirrored = torch.rand((), generator=generator) < 0.5
        views = {name: maps.flip(-1) if mirrored else maps for name, maps in stored.items()}
        return {"low": views["low"].float(), "high": views["high"].float(), "labels": views["labels"].long()}


def _encode(image: np.ndarray, labels: np.ndarray, side: int, vlm: MiniModel, head: DenseHead) -> dict[str, Tensor]:
    read = read_photo(vlm, head, image, side)
    height, width = read.low.shape[2:]
    fine = resize_labels(labels, (STRIDE * height, STRIDE * width))[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    return {
        "low": read.low[0].half().contiguous(),
        "high": read.high[0].half().contiguous(),
        "labels": torch.from_numpy(fine.astype(np.int16)),
    }
