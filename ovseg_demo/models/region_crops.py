"""Masked crops: each proposal cut out, its surroundings filled, resized for an image tower."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.runtime.preprocess import normalise


def masked_crops(image: np.ndarray, proposals: MaskProposals, **options: Any) -> Iterator[Tensor]:
    """Batches of normalised crops, float32 (B, 3, size, size), without their masks.

    Args:
        image: uint8 (H, W, 3), RGB.
        proposals: masks of the image.
        options: keyword arguments of `masked_crops_and_masks`.
    """
    return (crops for crops, _ in masked_crops_and_masks(image, proposals, **options))


def masked_crops_and_masks(
    image: np.ndarray,
    proposals: MaskProposals,
    *,
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    batch_size: int,
    antialias: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of normalised crops, float32 (B, 3, size, size), and their masks, bool (B, size, size).

    In proposal order; each crop has the mask of its box, resized by nearest neighbour.

    The rule of OVSeg (Liang et al. 2023, section 3.3, and the released adapter): crop the tight box of the mask,
    fill everything outside the mask with the mean colour (which normalisation turns into exactly zero), then
    resize by bicubic interpolation without keeping the aspect ratio. The reference does not antialias.

    Args:
        image: uint8 (H, W, 3), RGB.
        proposals: masks of the image.
        size: side of the square crops in pixels.
        mean: of R, G and B on the 0..255 scale, for normalisation.
        std: standard deviation of R, G and B on the 0..255 scale.
        batch_size: largest B.
        antialias: whether crops are smoothed before they are shrunk.
    """
    pixels = normalise(torch.from_numpy(image).permute(2, 0, 1), mean, std).contiguous()
    boxes = proposals.boxes()
    for start in range(0, len(proposals), batch_size):
        crops, masks = [], []
        for index in range(start, min(start + batch_size, len(proposals))):
            x0, y0, x1, y1 = boxes[index]
            x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)  # an empty mask has an empty box; its crop is all fill
            inside = torch.from_numpy(proposals.mask(index)[y0:y1, x0:x1])
            crop = (pixels[:, y0:y1, x0:x1] * inside)[None]
            crops.append(F.interpolate(crop, (size, size), mode="bicubic", antialias=antialias))
            masks.append(F.interpolate(inside[None, None].byte(), (size, size), mode="nearest")[0])
        yield torch.cat(crops), torch.cat(masks).bool()
