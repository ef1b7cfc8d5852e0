"""Pixel-adaptive mask refinement (PAMR; Araslanov and Roth, CVPR 2020): scores follow the colours of the photo.

Every pixel's scores become the mean of its neighbours' scores, weighted by how alike the neighbours look. NACLIP does
this ten times, with the neighbours at a distance of 8 and of 16 pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 10
DILATIONS = (8, 16)
"""Distances to the neighbours in pixels, along each axis."""

_CONTRAST = 0.1
"""A neighbour that differs by so many standard deviations has a logit of -1."""
_SMALLEST = 1e-8

_OFFSETS = [(y * d, x * d) for d in DILATIONS for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_PADDING = max(DILATIONS)
_BAND = {"cpu": 16}  # rows at once, so that their affinities stay in a core's cache
_BAND_ELSEWHERE = 2**16


def affinities(image: Tensor) -> Tensor:
    """The weights of each pixel's 16 neighbours, float32 (16, H, W), which sum to 1 over the neighbours.

    A softmax of -|x - x_n| / (0.1 s), averaged over the channels, with s the standard deviation of the channel over
    the 3 x 3 pixels of both distances. Beyond the borders the outermost pixels are repeated.

    Args:
        image: normalised pixels, float32 (3, H, W).
    """
    logits = image.new_zeros(len(_OFFSETS), *image.shape[1:])
    for channel in image:
        padded = _padded(channel[None])[0]
        near = torch.stack([_shifted(padded, offset, channel.shape) for offset in _OFFSETS])
        # The pixel itself is among the 3 x 3 of each distance.
        deviation = torch.cat([near, channel.expand(len(DILATIONS), -1, -1)]).std(0)
        logits -= near.sub_(channel).abs_().div_(deviation.mul_(_CONTRAST).add_(_SMALLEST))
    return logits.div_(len(image)).softmax(0)


def refine(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores after ITERATIONS, float32 (K, H, W).

    Args:
        scores: before, float32 (K, H, W); unchanged.
        weights: the affinities of the photo.
    """
    height, width = scores.shape[1:]
    step = _BAND.get(scores.device.type, _BAND_ELSEWHERE)
    for _ in range(ITERATIONS):
        padded, scores = _padded(scores), torch.zeros_like(scores)
        for top in range(0, height, step):
            band = scores[:, top : top + step]
            for offset, weight in zip(_OFFSETS, weights[:, top : top + step], strict=True):
                band.addcmul_(_shifted(padded[:, top:], offset, (band.shape[1], width)), weight)
    return scores


def _padded(maps: Tensor) -> Tensor:
    return F.pad(maps[None], [_PADDING] * 4, mode="replicate")[0]


def _shifted(padded: Tensor, offset: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """The neighbours at an offset of the first pixels, (..., *size), of padded maps."""
    top, left = (_PADDING + each for each in offset)
    return padded[..., top : top + size[0], left : left + size[1]]
