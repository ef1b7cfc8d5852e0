"""What training reads of captioned photos, computed once: features of the frozen towers, and superpixels.

The files are those of `train.common.feature_cache`, each of a view of some photos. Photos are stretched to squares.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from skimage.segmentation import felzenszwalb
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.towers import MEAN, STD, ImageTower, TextTower
from train.common.feature_cache import FeatureCache
from train.common.image_sets import DescribedSet, open_photo

SIDE = 256
"""Side in pixels to which a view is resized."""

GRID = SIDE // 16
"""Patches a side of a view: those of the tower's maps at stride 16."""

CAPTIONS = 5
"""Captions kept of a photo; of a photo with fewer, some are kept more than once."""

WINDOW = 0.75
"""Share of the width and height that a view keeps, other than the first view, which is the whole photo."""

_SUPERPIXEL_SIDE = SIDE // 2
_SUPERPIXEL_SCALE = 112
_SMALLEST_SUPERPIXEL = 56
_PHOTOS_IN_FILE = 250
_BATCH = 10


@dataclass(frozen=True)
class CaptionedFeatures:
    """One view of each of N photos.

    Attributes:
        anchors: the vector of the anchors' linear regression at stride 32, float16 (N, D, 8, 8).
        coarse: maps of the image tower at stride 16, float16 (N, 120, 16, 16).
        last: maps of the image tower at stride 32, float16 (N, 1280, 8, 8).
        superpixels: the superpixel at the centre of each patch at stride 16, int16 (N, 256).
        captions: text embeddings, unit vectors, float16 (N, CAPTIONS, D).
    """

    anchors: Tensor
    coarse: Tensor
    last: Tensor
    superpixels: Tensor
    captions: Tensor


TENSORS = tuple(field.name for field in fields(CaptionedFeatures))
"""Names of the tensors of a file."""


class PhotoEncoder:
    """The frozen towers, and the files of what they say of captioned photos.

    Args:
        image_tower: computes maps.
        text_tower: embeds captions.
        anchors: the regression of the untrained half of the mini model.
        projection: from weights of the anchors to a vector of the text space, (A, D); see
            `train.mini.tagclip.initialisation.anchor_projection`.
        cache: keeps the files; it has the TENSORS.
    """

    def __init__(
        self, image_tower: ImageTower, text_tower: TextTower, anchors: Anchors, projection: Tensor, cache: FeatureCache
    ) -> None:
        self._tower, self._texts, self._anchors, self._projection = image_tower, text_tower, anchors, projection
        self._cache = cache

    def encode(self, source: DescribedSet, view: int) -> CaptionedFeatures:
        """A view of every photo of a set; what is missing in the files is computed.

        Args:
            source: photos with captions.
            view: the whole photo if 0, otherwise a random window, another one for each number.

        Raises:
            DatasetError: when a photo cannot be read.
            TrainingError: when a file is damaged or cannot be written.
        """
        files = []
        starts = range(0, len(source.photos), _PHOTOS_IN_FILE)
        for start in tqdm(starts, desc=f"view {view} of {source.name}", unit="file", disable=None):
            numbers = range(start, min(start + _PHOTOS_IN_FILE, len(source.photos)))
            name = f"{source.name}-{view}-{start:06d}"
            files.append(self._cache.get(name, partial(self._encode, source, numbers, view)))
        return join([CaptionedFeatures(**file) for file in files])

    @torch.inference_mode()
    def _encode(self, source: DescribedSet, numbers: Sequence[int], view: int) -> dict[str, Tensor]:
        photos = [view_of(open_photo(source.photos[number]).pixels, number, view) for number in numbers]
        maps = [self._maps(torch.cat(photos[start : start + _BATCH])) for start in range(0, len(photos), _BATCH)]
        texts = [text for number in numbers for text in _repeated(source.texts[number])]
        return dict(
            zip(
                TENSORS,
                (
                    *(torch.cat(levels) for levels in zip(*maps, strict=True)),
                    torch.stack([superpixels_of(photo) for photo in photos]),
                    self._texts(texts).unflatten(0, (-1, CAPTIONS)).half().cpu(),
                ),
                strict=True,
            )
        )

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        _, _, coarse, last = self._tower.pyramid(pixels)
        weights = self._anchors.weights(self._tower.class_logits(last.movedim(1, -1).flatten(0, 2)))
        regression = (weights @ self._projection.to(weights)).unflatten(0, (len(last), *last.shape[2:])).movedim(-1, 1)
        return [level.half().cpu().contiguous() for level in (regression, coarse, last)]


def join(parts: Sequence[CaptionedFeatures]) -> CaptionedFeatures:
    """The photos of all parts, one after the other."""
    return CaptionedFeatures(*(torch.cat([getattr(part, name) for part in parts]) for name in TENSORS))


def view_of(image: np.ndarray, number: int, view: int) -> Tensor:
    """A view of a photo, normalised, float32 (1, 3, SIDE, SIDE).

    Args:
        image: uint8 (H, W, 3), RGB.
        number: of the photo.
        view: see `PhotoEncoder.encode`.
    """
    generator = torch.Generator().manual_seed(1000 * number + view)
    share = WINDOW if view else 1.0
    sides = [max(1, round(side * share)) for side in image.shape[:2]]
    top, left = (
        int(torch.randint(whole - side + 1, (), generator=generator))
        for whole, side in zip(image.shape[:2], sides, strict=True)
    )
    window = torch.from_numpy(image[top : top + sides[0], left : left + sides[1]]).permute(2, 0, 1)[None].float()
    return (F.interpolate(window, (SIDE, SIDE), mode="bicubic", antialias=True) - MEAN) / STD


def superpixels_of(pixels: Tensor) -> Tensor:
    """The superpixel at the centre of each patch of a view (1, 3, SIDE, SIDE), int16 (GRID * GRID,)."""
    small = F.interpolate(pixels, (_SUPERPIXEL_SIDE,) * 2, mode="bilinear", antialias=True)[0].movedim(0, -1)
    values = (small * STD + MEAN).clamp(0, 255).byte().numpy()
    labels = felzenszwalb(values, _SUPERPIXEL_SCALE, 0.5, _SMALLEST_SUPERPIXEL)
    patch = _SUPERPIXEL_SIDE // GRID
    return torch.from_numpy(labels[patch // 2 :: patch, patch // 2 :: patch].astype(np.int16)).flatten()


def _repeated(texts: Sequence[str]) -> list[str]:
    return [texts[number % len(texts)] for number in range(CAPTIONS)]
