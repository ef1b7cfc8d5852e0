"""The bundled mini model: an ImageNet classifier and a sentence encoder, aligned by a formula and by trained heads.

`anchors` carries what the classifier knows to any word, without training; `heads` were trained on masks, captions and
tags. Their logits add up, which keeps the open vocabulary of the first and the accuracy of the second.
checkpoints/MODEL_CARD.md has the formulas, the origins and the measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.towers import MEAN, STD, ImageTower, TextTower
from ovseg_demo.models.region_crops import masked_crops
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.runtime.worker_pool import worker_pool
from ovseg_demo.vocabulary import readable_text
from ovseg_demo.weights.loading import load_for_inference

CROP_SIDE = 224
"""Side of the crops. The tower was trained at 260; on masked regions 224 is better, and a quarter faster."""

IMAGE_SIDE = 512
"""Longest side, in pixels, at which whole photos are read."""

BACKGROUND_PROMPTS = ("object", "background", "landscape", "room")
"""What else a region may be when the vocabulary is a single word: broad texts that score middling everywhere."""

_SAME_MEANING = 0.6  # cosine above which a rival means what the person typed
_BATCH = 8  # on a CPU: its maps stay in the last cache
_GPU_BATCH = 64
_COARSEST = ImageTower.STRIDES[-1]


@dataclass(frozen=True)
class DenseFeatures:
    """What is known of every place of a photo.

    Attributes:
        anchors: weights of the anchors at stride 32, float32 (h, w, A).
        places: embeddings of the dense head at stride 4, float16 (8h, 8w, D).
        maps: of the image tower at strides 16, 8 and 4, float16 (120, 2h, 2w), (48, 4h, 4w), (24, 8h, 8w).
    """

    anchors: Tensor
    places: Tensor
    maps: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (self.anchors, self.places, *self.maps))


class MiniModel:
    """EfficientNet-Lite2 and all-MiniLM-L6-v2, with the bundled heads or those of a file.

    Raises CheckpointError when weights are missing or damaged.
    """

    name = "mini"

    def __init__(self, device: str | torch.device = "cpu", heads: str | Path = "mini-heads") -> None:
        self._device = torch.device(device)
        self._image_tower, self._text_tower = ImageTower(device), TextTower(device)
        self._anchors, self._heads = Anchors(device), load_for_inference(Heads(), heads).to(device)

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._text_tower([readable_text(word) for word in words])

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (R, 384) of the broad texts that do not mean one of `words`; at least the farthest."""
        rivals = self._text_tower(BACKGROUND_PROMPTS)
        closest = (rivals @ self.embed_texts(words).T).amax(1)
        return rivals[closest <= closest.min().clamp(min=_SAME_MEANING)]

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Weights of the anchors and embeddings of the trained head, (N, A + 384)."""
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
        weights = self._anchors.weights(self._image_tower.classes(features))
        return torch.cat([weights, self._heads.regions(features)], 1)

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Of regions (N, A + 384) at texts (K, 384): the anchors' regression and the head's product, (N, K)."""
        weights, embedded = regions.split([len(self._anchors), TextTower.WIDTH], dim=1)
        texts = texts.to(self._device)
        return self._anchors.logits(weights, texts) + embedded @ texts.T

    def embed_image(self, image: np.ndarray) -> DenseFeatures:
        """Every place of a photo, uint8 (H, W, 3), without proposals."""
        return self.embed_pixels(preprocess(image))

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> DenseFeatures:
        """Every place of a photo, or a part of one, that is normalised: float32 (1, 3, H, W), multiples of 32."""
        pyramid = self._image_tower.pyramid(pixels)
        coarse = pyramid[-1][0].movedim(0, -1)
        weights = self._anchors.weights(self._image_tower.classes(coarse.flatten(0, 1)))
        return DenseFeatures(
            weights.unflatten(0, coarse.shape[:2]),
            self._heads.places(pyramid)[0].half(),
            tuple(level[0].half() for level in pyramid[-2::-1]),
        )

    @torch.inference_mode()
    def anchor_logits(self, photo: DenseFeatures, texts: Tensor) -> Tensor:
        """What the anchors alone say of each text (K, 384) at every place of stride 32, float32 (K, h, w)."""
        logits = self._anchors.logits(photo.anchors.flatten(0, 1), texts.to(self._device))
        return logits.unflatten(0, photo.anchors.shape[:2]).movedim(-1, 0)

    @torch.inference_mode()
    def dense_logits(self, photo: DenseFeatures, texts: Tensor) -> Tensor:
        """Logits of each text (K, 384) at every fourth pixel of the photo as it was read, float32 (K, h, w)."""
        fine = (photo.places.float() @ texts.to(self._device).T).movedim(-1, 0)
        coarse = self.anchor_logits(photo, texts)
        return fine + F.interpolate(coarse[None], fine.shape[1:], mode="bilinear")[0]


def preprocess(image: np.ndarray, longest: int = IMAGE_SIDE) -> Tensor:
    """A photo, uint8 (H, W, 3), normalised, float32 (1, 3, h, w): the longest side about `longest`, multiples of 32."""
    scale = longest / max(image.shape[:2])
    size = [max(1, round(length * scale / _COARSEST)) * _COARSEST for length in image.shape[:2]]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return (F.interpolate(pixels, size, mode="bicubic", antialias=True) - MEAN) / STD
