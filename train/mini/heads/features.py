"""Features of the frozen image tower for views of regions and photos, one file a set (`train.common.feature_cache`)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.models.mini.towers import ImageTower
from train.common.feature_cache import FeatureCache
from train.common.image_sets import SMALLEST_REGION, DescribedSet, LabelledSet, open_photo
from train.common.run_folder import RunFolder
from train.mini import views
from train.mini.noun_matching import NounMatcher

_BATCH = 32


@dataclass(frozen=True)
class ViewFeatures:
    """Features of V views of each of the N regions or whole photos of a set.

    Attributes:
        features: pooled features, float16 (N, V, 1280).
        logits: logits of the ImageNet classes, float16 (N, V, 1000).
        photos: number of the photo in its set, int64 (N,).
        classes: class of the region, int64 (N,); 0 for whole photos.
    """

    features: Tensor
    logits: Tensor
    photos: Tensor
    classes: Tensor

    def select(self, kept: Tensor) -> "ViewFeatures":
        """The regions where `kept`, bool (N,), is true."""
        return ViewFeatures(self.features[kept], self.logits[kept], self.photos[kept], self.classes[kept])


def encode_regions(source: LabelledSet, tower: ImageTower, folder: RunFolder) -> ViewFeatures:
    """Features of the views of every region of a set, computed unless their file exists.

    Args:
        source: photos with masks.
        tower: the frozen image tower.
        folder: holds the file.

    Raises:
        DatasetError: when a photo or its labels cannot be read.
        TrainingError: when the file is damaged or cannot be written.
    """
    return _cached(folder, source.name, _region_views(source), len(source.dataset), tower)


def encode_photos(source: DescribedSet, tower: ImageTower, folder: RunFolder) -> ViewFeatures:
    """Features of the views of every photo of a set, computed unless their file exists.

    Args:
        source: photos with texts.
        tower: the frozen image tower.
        folder: holds the file.

    Raises:
        DatasetError: when a photo cannot be read.
        TrainingError: when the file is damaged or cannot be written.
    """
    return _cached(folder, source.name, _photo_views(source), len(source.photos), tower)


def encode_matched_nouns(
    source: DescribedSet, matcher: NounMatcher, count: int, tower: ImageTower, folder: RunFolder
) -> ViewFeatures:
    """Features of the regions that are matched to nouns of captions; the classes are rows of NOUNS.

    Mask proposals are slow, so only the `count` photos with the rarest nouns are used.

    Args:
        source: photos with captions.
        matcher: matches nouns to mask proposals.
        count: how many photos are used.
        tower: the frozen image tower.
        folder: holds the file.

    Raises:
        DatasetError: when a photo cannot be read.
        TrainingError: when the file is damaged or cannot be written.
    """
    rarest = matcher.finder.rarest(source, count)
    return _cached(folder, f"{source.name}-nouns", matcher.matches(rarest), len(rarest.photos), tower)


_Region = tuple[int, int, list[Tensor]]
"""Number of the photo, class of the region, and its views, (1, 3, S, S) each."""


def _region_views(source: LabelledSet) -> Iterator[list[_Region]]:
    for number, sample in enumerate(source.dataset):
        pixels, labels = source.load(sample)
        regions = []
        for index in np.unique(labels[labels >= 0]):
            mask = labels == index
            if source.training_classes[index] and mask.mean() >= SMALLEST_REGION:
                regions.append(
                    (number, int(index), [views.region_view(pixels, mask, view) for view in views.REGION_VIEWS])
                )
        yield regions


def _photo_views(source: DescribedSet) -> Iterator[list[_Region]]:
    for number, path in enumerate(source.photos):
        generator, pixels = torch.Generator().manual_seed(number), open_photo(path).pixels
        yield [(number, 0, [views.photo_view(pixels, *view, generator) for view in views.PHOTO_VIEWS])]


def _cached(
    folder: RunFolder, name: str, regions: Iterator[list[_Region]], count: int, tower: ImageTower
) -> ViewFeatures:
    def compute() -> dict[str, Tensor]:
        return _compute(tqdm(regions, total=count, desc=f"features of {name}", unit="photo", disable=None), tower)

    cache = FeatureCache(folder, [field.name for field in fields(ViewFeatures)])
    return ViewFeatures(**cache.get(name, compute))


@torch.inference_mode()
def _compute(photos: Iterable[list[_Region]], tower: ImageTower) -> dict[str, Tensor]:
    numbers, classes, crops, views_per_region = [], [], [], 1
    features, logits = [torch.empty(0, ImageTower.WIDTH).half()], [torch.empty(0, ImageTower.CLASSES).half()]

    def encode() -> None:
        pooled = tower.pooled(torch.cat(crops))
        features.append(pooled.half().cpu())
        logits.append(tower.class_logits(pooled).half().cpu())
        crops.clear()

    for regions in photos:
        for number, index, region_views in regions:
            numbers.append(number)
            classes.append(index)
            crops += region_views
            views_per_region = len(region_views)
            if len(crops) >= _BATCH:
                encode()
    if crops:
        encode()
    return {
        "features": torch.cat(features).unflatten(0, (-1, views_per_region)),
        "logits": torch.cat(logits).unflatten(0, (-1, views_per_region)),
        "photos": torch.tensor(numbers, dtype=torch.int64),
        "classes": torch.tensor(classes, dtype=torch.int64),
    }
