"""From a photo to MaskFormer's masks and class embeddings, as OVSeg prepares its images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.maskformer.model import STRIDE, MaskFormer
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise_image, resize_smoothed, scaled_size

_MASK_STRIDE = 4
_QUERIES = 20


@dataclass(frozen=True)
class MaskFormerOutput:
    """What MaskFormer says about one image of h x w pixels, after resizing, with Q queries.

    Attributes:
        classes: float32 (Q, D), class embeddings, not normalised, on the model's device.
        logits: float32 (Q, H / 4, W / 4), mask logits of the padded image, on the model's device. At the image's own
            size they would fill a cache with a single photo.
        pixels: uint8 (h, w, 3), the resized image, RGB.
    """

    classes: Tensor
    logits: Tensor
    pixels: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.classes.nbytes + self.logits.nbytes + self.pixels.nbytes

    def masks(self) -> Iterator[Tensor]:
        """Mask logits at the image's size, float32 (q, h, w), a few queries at a time."""
        height, width = self.pixels.shape[:2]
        for some in self.logits.split(_QUERIES):
            large = F.interpolate(some[None], scale_factor=_MASK_STRIDE, mode="bilinear", align_corners=False)
            yield large[0, :, :height, :width]


class MaskFormerPredictor:
    """Resizes and normalises an image and runs the model.

    Args:
        model: in evaluation mode.
        shortest: pixels that the image's shorter side is resized to; released: 512 for r101c, 640 for swinb.
        longest: at most as many pixels of the longer side; released: 2048 and 2560.
    """

    def __init__(self, model: MaskFormer, shortest: int, longest: int) -> None:
        self.model, self.shortest, self.longest = model, shortest, longest

    @torch.inference_mode()
    def read(self, image: np.ndarray) -> MaskFormerOutput:
        """Read an RGB image, uint8 (H, W, 3), of any size and shape."""
        height, width = image.shape[:2]
        pixels = resize_smoothed(image, scaled_size((height, width), self.shortest, self.longest))
        device = next(self.model.parameters()).device
        predictions = self.model(normalise_and_pad(pixels).to(device), every_layer=False)[-1]
        return MaskFormerOutput(predictions.classes[0], predictions.masks[0], pixels)


def normalise_and_pad(pixels: np.ndarray) -> Tensor:
    """RGB pixels, uint8 (h, w, 3), as the model's input: float32 (1, 3, H, W), padded with 0 to multiples of 32.

    Mean and deviation are ImageNet's; the padding is on the right and below, and comes after normalising, so it is the
    mean colour.
    """
    below, right = (-side % STRIDE for side in pixels.shape[:2])
    normalised = normalise_image(pixels, IMAGENET_MEAN, IMAGENET_STD)
    return F.pad(normalised, (0, right, 0, below)).contiguous(memory_format=torch.channels_last)
