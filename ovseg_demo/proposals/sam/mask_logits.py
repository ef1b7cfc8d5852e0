"""Arithmetic on mask logits: stability, boxes, resizing to the image."""

from bisect import bisect_left

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.sam.mobile_sam import GRID, LOGITS, SIDE, TOKEN, EncodedImage

OFFSET = 1.0
"""Logits by which the threshold of a mask is raised and lowered to test its stability."""


def stability(logits: Tensor) -> Tensor:
    """Segment Anything's stability score: the IoU of the masks whose threshold is raised and lowered by `OFFSET`.

    Args:
        logits: (N, H, W).

    Returns:
        float32 (N,), 0 to 1; 0 where even the lower threshold leaves no pixel.
    """
    intersection = (logits > OFFSET).sum((-1, -2))
    union = (logits > -OFFSET).sum((-1, -2))
    return intersection / union.clamp(min=1)


def tight_boxes(masks: Tensor) -> Tensor:
    """First and last column and row of each mask: bool (N, H, W) to int64 (N, 4) x0, y0, x1, y1, all inclusive.

    Zeros for an empty mask. Segment Anything suppresses duplicates by these boxes, so they are not the half-open
    ones of MaskProposals.
    """
    columns, rows = masks.any(-2).byte(), masks.any(-1).byte()
    first = [side.argmax(-1) for side in (columns, rows)]
    last = [side.shape[-1] - 1 - side.flip(-1).argmax(-1) for side in (columns, rows)]
    return torch.stack(first + last, -1) * columns.any(-1, keepdim=True)


class Canvas:
    """Resizes logits of the decoder, on the whole image or on a rectangle of image tokens, to the pixels of the image.

    The steps are segment-anything's: bilinear from the decoder's 256 x 256 to the encoder's 1024 x 1024, cut to the
    part that the image fills, bilinear to the image. They act on rows and columns separately, so each side needs one
    matrix.

    Args:
        encoded: the image.
    """

    def __init__(self, encoded: EncodedImage) -> None:
        self.encoded = encoded
        self._sides = [
            _Side(size, scaled, encoded.features.device)
            for size, scaled in zip(encoded.size, encoded.scaled, strict=True)
        ]

    def resize(self, logits: Tensor, cells: tuple[slice, slice]) -> tuple[Tensor, tuple[slice, slice]]:
        """Resize the logits of a rectangle of image tokens.

        Args:
            logits: (..., 4 * rows, 4 * columns).
            cells: the rows and columns of the tokens.

        Returns:
            Logits (..., h, w) of all image pixels whose value the given logits determine.
            The rows and columns of these pixels.
        """
        spans = [slice(LOGITS * cell.start, LOGITS * cell.stop) for cell in cells]
        rows, columns = (side.pixels(span) for side, span in zip(self._sides, spans, strict=True))
        vertical, horizontal = (
            side.weights[pixel, span] for side, pixel, span in zip(self._sides, (rows, columns), spans, strict=True)
        )
        return vertical @ logits @ horizontal.T, (rows, columns)

    def preview_boxes(self, previews: Tensor) -> Tensor:
        """Boxes in image pixels, float32 (N, 4) x0, y0, x1, y1, of masks of image tokens, bool (N, rows, columns)."""
        boxes = tight_boxes(previews)
        boxes[:, 2:] += 1
        (height, width), (h, w) = self.encoded.size, self.encoded.scaled
        return boxes * torch.tensor([TOKEN * width / w, TOKEN * height / h], device=boxes.device).repeat(2)


class _Side:
    """How the pixels along one side of the image depend on the decoder's logits along this side.

    Args:
        size: pixels of the image along this side.
        scaled: pixels of the resized image in the encoder's square.
        device: where the weights lie.

    Attributes:
        weights: float32 (size, 256), each row sums to 1.
    """

    def __init__(self, size: int, scaled: int, device: torch.device) -> None:
        logits = torch.eye(LOGITS * GRID, device=device)[None]
        square = F.interpolate(logits, SIDE, mode="linear")[..., :scaled]
        self.weights = F.interpolate(square, size, mode="linear")[0].T.contiguous()
        used = self.weights != 0
        self._first = used.byte().argmax(1).tolist()
        self._last = (used.shape[1] - 1 - used.flip(1).byte().argmax(1)).tolist()

    def pixels(self, span: slice) -> slice:
        """The pixels that depend on no logit outside of `span`."""
        return slice(bisect_left(self._first, span.start), bisect_left(self._last, span.stop))
