"""MROVSeg on the bundled mini model: 2 x 2 slices and a half-size global view through EfficientNet-Lite2.

Places are named as in `mini-dense`: what the model says of a photo has the form of the mini model's dense features.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.mrovseg.evidence import TRUST
from ovseg_demo.methods.mrovseg.mini_model import CELL, MiniMROVSegModel
from ovseg_demo.methods.mrovseg.slices import Slicing
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.models.mini.heads import DenseHead
from ovseg_demo.models.mini.model import IMAGE_SIDE, DenseFeatures, MiniModel, normalised, preprocessed_size
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary
from ovseg_demo.weights.loading import load_for_inference

CHECKPOINT = "mrovseg-mini"

LONGEST = (320, IMAGE_SIDE)
"""Smallest and largest longest side of the global view in pixels; photos in between are enlarged for the slices alone.
"""

_STRIDE = ImageTower.STRIDES[0]


@dataclass(frozen=True)
class TwoResolutions:
    """What the frozen half of the model reads of a photo, on the places of the global view.

    Attributes:
        low, high: features of the dense head at stride 4, of the global view and of the slices, (1, W, 8h, 8w).
        low_anchors, high_anchors: weights of the anchors at stride 32, (1, A, h, w).
    """

    low: Tensor
    high: Tensor
    low_anchors: Tensor
    high_anchors: Tensor


@torch.inference_mode()
def read_photo(model: MiniModel, head: DenseHead, image: np.ndarray, longest: int) -> TwoResolutions:
    """Read a photo as a global view, and at twice its sides in slices.

    Args:
        model: the mini model.
        head: makes features of the image tower's maps.
        image: uint8 (H, W, 3), RGB.
        longest: pixels of the longest side of the global view and of every slice, up to rounding.
    """
    height, width = preprocessed_size(image.shape[:2], longest)
    low = model.pyramid(normalised(image, (height, width)))
    slices = Slicing.of((2 * height, 2 * width), ImageTower.STRIDES[-1])
    of_slices = [model.pyramid(pixels) for pixels in slices.cut(normalised(image, slices.size))]
    high = [
        Slicing.of(slices.size, stride).tile([level.permute(0, 2, 3, 1) for level in levels]).permute(0, 3, 1, 2)
        for stride, levels in zip(ImageTower.STRIDES, zip(*of_slices, strict=True), strict=True)
    ]
    return TwoResolutions(
        head.maps(low),
        F.avg_pool2d(head.maps(high), 2),
        model.anchor_weights(low[-1]),
        F.avg_pool2d(model.anchor_weights(high[-1]), 2),
    )


@dataclass(frozen=True)
class MiniFeatures:
    """What the model says of a photo, before any word is known.

    Attributes:
        places: embeddings of places on the grid of the global view, and weights of the anchors.
        attention: how much each place trusts the slices, 0 to 1, float32 (8h, 8w).
    """

    places: DenseFeatures
    attention: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.places.nbytes + self.attention.nbytes


@torch.inference_mode()
def embed_photo(model: MiniModel, trained: MiniMROVSegModel, image: np.ndarray) -> MiniFeatures:
    """Read a photo, and fuse what is read.

    Args:
        model: the mini model.
        trained: fuses its features.
        image: uint8 (H, W, 3), RGB.
    """
    longest = min(LONGEST[1], max(LONGEST[0], *image.shape[:2]))
    views = read_photo(model, trained.dense, image, longest)
    predicted = trained(views.low, views.high)
    # The scale attention decides for the anchors too, whose weights are not learned.
    attention = F.avg_pool2d(predicted.attention[:, None], CELL)
    anchors = torch.lerp(views.low_anchors, views.high_anchors, attention)
    dense = trained.scale * (predicted.embeddings[0].movedim(0, -1) - trained.mean)
    places = DenseFeatures(anchors[0].movedim(0, -1).contiguous(), dense.half(), ())
    return MiniFeatures(places, predicted.attention[0].contiguous())


class MiniMROVSeg:
    """Segments by the embeddings of places that were read at two resolutions.

    Args:
        model: the mini model.
        trained: fuses its features, on the same device.
    """

    def __init__(self, model: MiniModel, trained: MiniMROVSegModel) -> None:
        self._model, self._trained = model, trained

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: MethodOptions, stages: Stages) -> Segmentation:
        """The class with the highest probability at every pixel; see `base.Method`."""
        model = self._model
        features = stages.cached(
            "Reading the photo",
            (CHECKPOINT, photo.key, model.name),
            lambda _: embed_photo(model, self._trained, photo.pixels),
        )
        texts = class_texts.embed_vocabulary(model, vocabulary, stages)
        background = class_texts.embed_background(model, vocabulary, stages)
        with stages.timed("Naming pixels"):
            logits = model.dense_logits(features.places, torch.cat([texts.embeddings, background]))
            scores = class_texts.class_scores(logits, texts, model.dense_calibration)
            result = Segmentation.from_scores(vocabulary.names, scores.probabilities, photo.pixels.shape[:2])
            result = known.with_known(result, scores.odds, model.dense_calibration)
        height, width = (_STRIDE * side for side in features.attention.shape)
        note = f"Read at {2 * height} × {2 * width} pixels in slices, and at {height} × {width} as a whole."
        trust = Evidence(TRUST, features.attention[None].half().cpu().numpy(), None)
        return replace(result, evidence=(trust,), notes=(note,))


def load_mrovseg_mini(model: MiniModel, device: str | torch.device) -> MiniMROVSeg:
    """MROVSeg on the mini model, whose towers are shared with its other methods.

    Args:
        model: the mini model.
        device: where the fusion and the queries run.

    Raises:
        CheckpointError: when the file is missing, damaged or does not fit.
    """
    return MiniMROVSeg(model, load_for_inference(MiniMROVSegModel(), CHECKPOINT).to(device))
