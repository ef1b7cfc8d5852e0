"""Features of the frozen image tower for views of regions and photos, one file a set (`train.mini.feature_cache`)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.models.mini.towers import ImageTower
from train.common.image_sets import SMALLEST_REGION, DescribedSet, LabelledSet, open_photo
from train.common.run_folder import RunFolder
from train.mini import views
from train.mini.feature_cache import FeatureCache
from train.mini.noun_matching import NounMatcher

_BATCH = 32


@dataclass(frozen=True)
class ViewFeatures:
    """V views of each of N regions, or whole photos, of a set.

    Attributes:
        features: float16 (N, V, 1280), pooled.
        logits: float16 (N, V, 1000), of the ImageNet classes.
        photos: int64 (N,), the photo's number in its set.
        classes: int64 (N,), the region's class; 0 for whole photos.
    """

    features: Tensor
    logits: Tensor
    photos: Tensor
    classes: Tensor

    def only(self, kept: Tensor) -> "ViewFeatures":
        """The regions that bool (N,) selects."""
        return ViewFeatures(self.features[kept], self.logits[kept], self.photos[kept], self.classes[kept])


def encode_regions(source: LabelledSet, tower: ImageTower, folder: RunFolder) -> ViewFeatures:
    """Features of the views of every region of a set, computed unless their file exists in the folder."""
    return _kept(folder, source.name, _region_views(source), len(source.dataset), tower)


def encode_photos(source: DescribedSet, tower: ImageTower, folder: RunFolder) -> ViewFeatures:
    """Features of the views of every photo of a set, computed unless their file exists in the folder."""
    return _kept(folder, source.name, _photo_views(source), len(source.photos), tower)


def encode_matched_nouns(
    source: DescribedSet, matcher: NounMatcher, count: int, tower: ImageTower, folder: RunFolder
) -> ViewFeatures:
    """Features of the regions that were matched to nouns of captions, their classes being rows of NOUNS.

    Mask proposals are slow, so only the `count` photos with the rarest nouns are used.

    Args:
        source: photos with captions.
        matcher: matches nouns to mask proposals.
        count: how many photos are used.
        tower: the frozen image tower.
        folder: holds the file.
    """
    chosen = matcher.rarest(source, count)
    return _kept(folder, f"{source.name}-nouns", matcher.matches(chosen), len(chosen.photos), tower)


_Item = tuple[int, int, list[Tensor]]
"""Number of the photo, class, views (1, 3, S, S)."""


def _region_views(source: LabelledSet) -> Iterator[list[_Item]]:
    for number, sample in enumerate(source.dataset):
        pixels, labels = source.load(sample)
        found = []
        for index in np.unique(labels[labels >= 0]):
            mask = labels == index
            if source.training_classes[index] and mask.mean() >= SMALLEST_REGION:
                found.append(
                    (number, int(index), [views.region_view(pixels, mask, view) for view in views.REGION_VIEWS])
                )
        yield found


def _photo_views(source: DescribedSet) -> Iterator[list[_Item]]:
    for number, path in enumerate(source.photos):
        generator, pixels = torch.Generator().manual_seed(number), open_photo(path).pixels
        yield [(number, 0, [views.photo_view(pixels, *view, generator) for view in views.PHOTO_VIEWS])]


def _kept(folder: RunFolder, name: str, items: Iterator[list[_Item]], count: int, tower: ImageTower) -> ViewFeatures:
    def compute() -> dict[str, Tensor]:
        return _computed(tqdm(items, total=count, desc=f"features of {name}", unit="photo", disable=None), tower)

    cache = FeatureCache(folder, [field.name for field in fields(ViewFeatures)])
    return ViewFeatures(**cache.get(name, compute))


@torch.inference_mode()
def _computed(photos: Iterable[list[_Item]], tower: ImageTower) -> dict[str, Tensor]:
    numbers, classes, crops, each = [], [], [], 1
    features, logits = [torch.empty(0, ImageTower.WIDTH).half()], [torch.empty(0, ImageTower.CLASSES).half()]

    def read() -> None:
        pooled = tower.pooled(torch.cat(crops))
        features.append(pooled.half().cpu())
        logits.append(tower.classes(pooled).half().cpu())
        crops.clear()

    for items in photos:
        for number, index, found in items:
            numbers.append(number)
            classes.append(index)
            crops += found
            each = len(found)
            if len(crops) >= _BATCH:
                read()
    if crops:
        read()
    return {
        "features": torch.cat(features).unflatten(0, (-1, each)),
        "logits": torch.cat(logits).unflatten(0, (-1, each)),
        "photos": torch.tensor(numbers, dtype=torch.int64),
        "classes": torch.tensor(classes, dtype=torch.int64),
    }
