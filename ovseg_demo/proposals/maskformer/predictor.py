"""From a photo to MaskFormer's mask logits and class embeddings; photos are resized as OVSeg does."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.maskformer.model import STRIDE, MaskFormer
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise_image, resize_smoothed, scaled_size

_MASK_STRIDE = 4
_QUERIES_AT_ONCE = 20


@dataclass(frozen=True)
class MaskFormerOutput:
    """The predictions of MaskFormer's last decoder layer for one resized image of h x w pixels, with Q queries.

    Attributes:
        class_embeddings: float32 (Q, D), in the text space, not normalised, on the model's device.
        mask_logits: float32 (Q, H / 4, W / 4), of the image padded to H x W, on the model's device. At the size of the
            image they would fill a cache with a single photo.
        pixels: uint8 (h, w, 3), the resized image, RGB.
    """

    class_embeddings: Tensor
    mask_logits: Tensor
    pixels: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of all three in memory."""
        return self.class_embeddings.nbytes + self.mask_logits.nbytes + self.pixels.nbytes

    def enlarged_mask_logits(self) -> Iterator[Tensor]:
        """Mask logits at the size of the resized image, float32 (q, h, w), a few queries at a time."""
        height, width = self.pixels.shape[:2]
        for logits in self.mask_logits.split(_QUERIES_AT_ONCE):
            large = F.interpolate(logits[None], scale_factor=_MASK_STRIDE, mode="bilinear", align_corners=False)
            yield large[0, :, :height, :width]


class MaskFormerPredictor:
    """MaskFormer for photos of any size: resizes and normalises a photo, and runs the model.

    Args:
        model: in evaluation mode.
        shortest: pixels of the shorter side of the resized photo; for the released models 512 with r101c, 640 with
            swinb.
        longest: most pixels of its longer side; for the released models 2048 with r101c, 2560 with swinb.
    """

    def __init__(self, model: MaskFormer, shortest: int, longest: int) -> None:
        self.model, self.shortest, self.longest = model, shortest, longest

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> MaskFormerOutput:
        """Predictions for an RGB image, uint8 (H, W, 3), of any size and aspect ratio."""
        height, width = image.shape[:2]
        pixels = resize_smoothed(image, scaled_size((height, width), self.shortest, self.longest))
        device = next(self.model.parameters()).device
        predictions = self.model(normalise_and_pad(pixels).to(device), every_layer=False)[-1]
        return MaskFormerOutput(predictions.class_embeddings[0], predictions.mask_logits[0], pixels)


def normalise_and_pad(pixels: np.ndarray) -> Tensor:
    """RGB pixels as the model's input, normalised with ImageNet's mean and standard deviation.

    The padding is on the right and below. It follows normalisation, so its zeros are the mean colour.

    Args:
        pixels: uint8 (h, w, 3).

    Returns:
        float32 (1, 3, H, W), padded with 0 to multiples of STRIDE.
    """
    below, right = (-side % STRIDE for side in pixels.shape[:2])
    normalised = normalise_image(pixels, IMAGENET_MEAN, IMAGENET_STD)
    return F.pad(normalised, (0, right, 0, below)).contiguous(memory_format=torch.channels_last)
