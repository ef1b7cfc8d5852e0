"""The bundled mini model: an ImageNet classifier and a sentence encoder, aligned by a formula and by trained heads.

The regression of `anchors` extends the classifier's scores to any word, without training; `heads` were trained on
masks, captions and tags. The logits of both are added: the anchors know more words, the heads are more accurate.
checkpoints/MODEL_CARD.md has the formulas, the origins and the measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.base import Calibration
from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.towers import MEAN, STD, ImageTower, TextTower
from ovseg_demo.models.region_crops import masked_crops
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.runtime.worker_pool import worker_pool
from ovseg_demo.vocabulary import readable_text
from ovseg_demo.weights.loading import load_for_inference

CROP_SIDE = 224
"""Side of the crops in pixels. The tower was trained at 260; on masked regions 224 is better, and a quarter faster."""

IMAGE_SIDE = 512
"""Longest side, in pixels, to which photos are resized for dense features."""

OTHER_SIDES = (256, 768)
"""Longest sides at which photos are read a second and a third time: the small one shows the scene, the large one small
things. The mean of the readings is better than one of them; a mirrored one adds next to nothing (see the model card).
"""

PLACES_SHARE = 0.5
"""Share of the places under a small region's mask in the region's logits; the rest is the share of its crop. It falls
with the square of the region's area to zero for the whole photo, whose crop shows all that its places have seen."""

DENSE_CALIBRATION = Calibration(0.784, 0.802, 0.881, 5.77, 0.992, -1.25, True)
REGION_CALIBRATION = Calibration(1.16, 1.41, 2.62, 4.77, 0.893, -1.52, True)
"""Fitted by `train.mini.calibration` on photos that the heads were not trained on."""

_BATCH = 8  # crops at once on a CPU: their maps stay in the last cache
_GPU_BATCH = 64
_COARSEST = ImageTower.STRIDES[-1]
_FINE_IN_COARSE = _COARSEST // ImageTower.STRIDES[0]
_MASKS = 32  # masks at once, as float32 at the size of the photo


@dataclass(frozen=True)
class DenseFeatures:
    """Dense features of a photo.

    Attributes:
        anchors: weights of the anchors at stride 32, float32 (h, w, A).
        dense: embeddings of the dense head at stride 4, float16 (8h, 8w, D).
        maps: feature maps of the image tower at strides 16, 8 and 4, float16 (120, 2h, 2w), (48, 4h, 4w), (24, 8h, 8w).
    """

    anchors: Tensor
    dense: Tensor
    maps: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all features in memory."""
        return sum(tensor.nbytes for tensor in (self.anchors, self.dense, *self.maps))

    def resized(self, size: tuple[int, int]) -> "DenseFeatures":
        """The embeddings on a grid of `size` (8h, 8w), the anchors on one of (h, w), and no maps.

        Logits are linear in both, so this equals resizing the logits of every text.
        """
        coarse = size[0] // _FINE_IN_COARSE, size[1] // _FINE_IN_COARSE
        return DenseFeatures(resize_grid(self.anchors, coarse), resize_grid(self.dense.float(), size).half(), ())


class MiniModel:
    """EfficientNet-Lite2 and all-MiniLM-L6-v2 with trained heads; a `VisionLanguageModel` and a `DenseModel`.

    Args:
        device: where the model runs.
        heads: an id of the catalogue, or a file that `train.mini.heads` wrote.

    Raises:
        CheckpointError: when weights are missing or damaged.
    """

    name = "mini"
    calibration, dense_calibration = REGION_CALIBRATION, DENSE_CALIBRATION

    def __init__(self, device: str | torch.device = "cpu", heads: str | Path = "mini-heads") -> None:
        self._device = torch.device(device)
        self._image_tower, self._text_tower = ImageTower(device), TextTower(device)
        self._anchors, self._heads = Anchors(device), load_for_inference(Heads(), heads).to(device)

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._text_tower([readable_text(word) for word in words])

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Weights of the anchors and embeddings by the heads, float32 (N, A + 384).

        Both are means of what the masked crop of a region says and what the places of the photo under its mask say,
        weighted by PLACES_SHARE: logits are linear in them. The crop shows details, the places have seen the
        surroundings.

        Args:
            image: uint8 (H, W, 3), RGB.
            proposals: N masks of the image.
            report: progress callback, called after each batch of crops.
        """
        pooled = [torch.empty(0, ImageTower.WIDTH, device=self._device)]
        size = _BATCH if self._device.type == "cpu" else _GPU_BATCH
        crops = masked_crops(
            image, proposals, size=CROP_SIDE, mean=(MEAN,) * 3, std=(STD,) * 3, batch_size=size, antialias=True
        )
        done = 0
        with worker_pool(self._device) as workers:
            for batch in crops:
                pooled += workers.map(self._image_tower.pooled, workers.chunks(batch))
                done += len(batch)
                report(done / len(proposals))
        features = torch.cat(pooled)
        weights = self._anchors.weights(self._image_tower.class_logits(features))
        of_crops = torch.cat([weights, self._heads.region_embeddings(features)], 1)
        # Other sizes add nothing to the places of a region.
        of_places, areas = mean_under_masks(self.embed_pixels(preprocess(image)), proposals)
        shares = torch.where(areas > 0, PLACES_SHARE * (1 - areas**2), 0)  # no place lies under an empty mask
        return of_crops.lerp(of_places, shares[:, None])

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Logits (N, K) of regions (N, A + 384) and texts (K, 384): the anchors' regression plus the head's product."""
        weights, embedded = regions.split([len(self._anchors), TextTower.WIDTH], dim=1)
        texts = texts.to(self._device)
        return self._anchors.logits(weights, texts) + embedded @ texts.T

    def embed_image(self, image: np.ndarray) -> DenseFeatures:
        """Dense features of a photo, uint8 (H, W, 3), RGB: the mean of readings at three sizes, maps of IMAGE_SIDE."""
        middle, *others = (self.embed_pixels(preprocess(image, side)) for side in (IMAGE_SIDE, *OTHER_SIDES))
        height, width = middle.dense.shape[:2]
        readings = [middle, *(other.resized((height, width)) for other in others)]
        return DenseFeatures(
            torch.stack([reading.anchors for reading in readings]).mean(0),
            torch.stack([reading.dense.float() for reading in readings]).mean(0).half(),
            middle.maps,
        )

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> DenseFeatures:
        """Dense features of normalised pixels, float32 (1, 3, H, W), both sides multiples of 32."""
        pyramid = self.pyramid(pixels)
        return DenseFeatures(
            self.anchor_weights(pyramid[-1])[0].movedim(0, -1),
            self._heads.dense_embeddings(pyramid)[0].half(),
            tuple(level[0].half() for level in pyramid[-2::-1]),
        )

    @torch.inference_mode()
    def pyramid(self, pixels: Tensor) -> list[Tensor]:
        """The image tower's maps of normalised pixels, see `ImageTower.pyramid`."""
        return self._image_tower.pyramid(pixels)

    @torch.inference_mode()
    def anchor_weights(self, last: Tensor) -> Tensor:
        """Weights of the anchors (B, A, h, w) of the image tower's maps at stride 32, (B, 1280, h, w)."""
        return self._anchors.weights_of_map(self._image_tower, last)

    @torch.inference_mode()
    def anchor_logits(self, features: DenseFeatures, texts: Tensor) -> Tensor:
        """Logits of the anchors' regression alone for texts (K, 384) at stride 32, float32 (K, h, w)."""
        logits = self._anchors.logits(features.anchors.flatten(0, 1), texts.to(self._device))
        return logits.unflatten(0, features.anchors.shape[:2]).movedim(-1, 0)

    @torch.inference_mode()
    def dense_logits(self, features: DenseFeatures, texts: Tensor) -> Tensor:
        """Logits of texts (K, 384) at stride 4 of the resized photo, float32 (K, h, w): dense head plus anchors."""
        fine = (features.dense.float() @ texts.to(self._device).T).movedim(-1, 0)
        coarse = self.anchor_logits(features, texts)
        return fine + F.interpolate(coarse[None], fine.shape[1:], mode="bilinear")[0]


def mean_under_masks(features: DenseFeatures, proposals: MaskProposals) -> tuple[Tensor, Tensor]:
    """The mean of dense features under each of N masks of the photo, and the areas of the masks.

    Args:
        features: anchors (h, w, A) and embeddings (8h, 8w, D).
        proposals: N masks; the mean under an empty mask is zero.

    Returns:
        The means, float32 (N, A + D), and the areas as shares of the photo, float32 (N,).
    """
    height, width = features.dense.shape[:2]
    dense = features.dense.float().flatten(0, 1)
    means, areas = [dense.new_empty(0, features.anchors.shape[-1] + dense.shape[1])], [dense.new_empty(0)]
    for start in range(0, len(proposals), _MASKS):
        masks = np.stack([proposals.mask(index) for index in range(start, min(start + _MASKS, len(proposals)))])
        pixels = torch.from_numpy(masks).to(dense.device, torch.float32)
        fine = F.adaptive_avg_pool2d(pixels, (height, width))
        coarse = F.avg_pool2d(fine, _FINE_IN_COARSE)
        areas.append(pixels.mean((1, 2)))
        fine, coarse = (F.normalize(share.flatten(1), p=1, dim=1) for share in (fine, coarse))
        means.append(torch.cat([coarse @ features.anchors.flatten(0, 1), fine @ dense], 1))
    return torch.cat(means), torch.cat(areas)


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """A grid of vectors, float32 (h, w, D), resized to `size`, with the mean of vectors that are closer together."""
    channels = grid.movedim(-1, 0)[None]
    return F.interpolate(channels, size, mode="bilinear", antialias=True)[0].movedim(0, -1).contiguous()


def preprocess(image: np.ndarray, longest: int = IMAGE_SIDE) -> Tensor:
    """Resize and normalise a photo.

    Args:
        image: uint8 (H, W, 3), RGB.
        longest: pixels of the longest side, up to rounding.

    Returns:
        float32 (1, 3, h, w), both sides multiples of 32, about in the photo's aspect ratio.
    """
    return normalised(image, preprocessed_size(image.shape[:2], longest))


def normalised(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A photo, uint8 (H, W, 3), RGB, resized to `size` (h, w) and normalised, float32 (1, 3, h, w)."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return (F.interpolate(pixels, size, mode="bicubic", antialias=True) - MEAN) / STD


def preprocessed_size(size: Sequence[int], longest: int) -> tuple[int, int]:
    """The height and width that `preprocess` gives a photo of `size` (H, W) in pixels."""
    height, width = (max(1, round(length * longest / max(size) / _COARSEST)) * _COARSEST for length in size)
    return height, width
