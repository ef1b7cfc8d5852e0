"""Everything-mode proposals of MobileSAM: a grid of points, each a prompt for up to three masks.

It keeps the masks that segment-anything's SamAutomaticMaskGenerator keeps, by the same thresholds, but rejects most of
the others before their logits are computed in full: by predicted quality, by a preview of one logit an image token, and
by the box of a better mask that is kept already. Logits are computed only on the rectangle around a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from ovseg_demo.errors import MethodError
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.proposals.sam.mask_logits import OFFSET, Canvas, stability, tight_boxes
from ovseg_demo.proposals.sam.mobile_sam import TOKEN, EncodedImage, MobileSam
from ovseg_demo.proposals.sam.point_decoder import MASKS, PointDecoder, PointPredictions, PreparedImage
from ovseg_demo.proposals.sam.point_filter import PointFilter
from ovseg_demo.runtime.worker_pool import WorkerPool, worker_pool


@dataclass(frozen=True)
class SearchSettings:
    """How densely the image is searched.

    Attributes:
        points_per_side: rows and columns of points.
        similarity_threshold: of `PointFilter`, which skips redundant points; None prompts with every point.
    """

    points_per_side: int
    similarity_threshold: float | None


SETTINGS = {"fast": SearchSettings(16, -0.2), "balanced": SearchSettings(16, 0.4), "thorough": SearchSettings(32, None)}
"""By name. "thorough" has all prompts of segment-anything's generator; docs/speed.md compares the settings' masks."""

MIN_QUALITY = 0.88
"""Least predicted IoU of a mask that is kept; this and the next two thresholds are segment-anything's defaults."""
MIN_STABILITY = 0.95
"""Least stability, see `mask_logits.stability`, of a mask that is kept."""
MAX_BOX_OVERLAP = 0.7
"""Of two masks whose boxes have a larger IoU, the one of lower quality is dropped."""

_BATCH = 8  # points at once on a CPU: their maps just fit into the last cache of a common one
_GPU_BATCH = 128  # points at once on a GPU: half a gigabyte of maps
_ENCODING_COST = 75  # encoding the image takes about as long as this many points
_PREVIEW_TOLERANCE = 0.05  # a preview's stability may be this far below the threshold
_MIN_PREVIEW_SIZE = 30  # a preview with fewer positive logits says nothing about stability
_MARGIN = 6  # image tokens around a preview: logits apart from the mask count for its stability too


@dataclass(frozen=True)
class _Candidate:
    """A mask that may be kept, before its logits are computed in full.

    Attributes:
        predictions: of the batch of points that the mask is from.
        point: index of the point in the batch, int (1,).
        mask_index: which of the point's three masks.
        quality: predicted IoU with a true object.
        preview_box: float32 (4,), the box of the preview in image pixels; None where the preview is empty.
        cells: rows and columns of image tokens on which to compute the logits.
    """

    predictions: PointPredictions
    point: Tensor
    mask_index: int
    quality: float
    preview_box: Tensor | None
    cells: tuple[slice, slice]

    def is_duplicate(self, kept: Sequence["_KeptMask"]) -> bool:
        """Whether a kept mask of higher quality has about the same box."""
        better = [mask.box for mask in kept if mask.quality > self.quality]
        if self.preview_box is None or not better:
            return False
        return bool(box_iou(self.preview_box[None], torch.stack(better)).max() > MAX_BOX_OVERLAP)


@dataclass(frozen=True)
class _KeptMask:
    """A mask that has passed every threshold.

    Attributes:
        packed: uint8 (H, ceil(W / 8)), as in MaskProposals.
        width: W.
        box: float32 (4,), x0, y0, x1, y1 in image pixels, all inclusive.
        quality: predicted IoU with a true object.
    """

    packed: np.ndarray
    width: int
    box: Tensor
    quality: float

    def pixels(self) -> np.ndarray:
        """The mask, bool (H, W)."""
        return np.unpackbits(self.packed, axis=-1, count=self.width).view(bool)


class SamMaskGenerator:
    """Masks of everything in an image, best predicted quality first.

    Args:
        model: MobileSAM, loaded and on its device.
        setting: a name in SETTINGS.

    Attributes:
        name: identifies the masks that it proposes, for caches.

    Raises:
        MethodError: for an unknown setting.
    """

    def __init__(self, model: MobileSam, setting: str = "balanced") -> None:
        if setting not in SETTINGS:
            raise MethodError(f"Unknown proposal setting '{setting}'; choose one of {', '.join(SETTINGS)}.")
        self.model = model
        self.decoder = PointDecoder(model)
        self.settings = SETTINGS[setting]
        self.name = f"sam-{setting}"
        self._batch = _BATCH if model.device.type == "cpu" else _GPU_BATCH

    @torch.inference_mode()
    def propose(self, image: np.ndarray, report: Report) -> MaskProposals:
        """Find the masks of an image.

        Args:
            image: uint8 (H, W, 3), RGB.
            report: progress callback, called once every few points; an exception that it raises ends the search.

        Returns:
            The masks with their predicted quality as scores, after non-maximum suppression.
        """
        report(0.0)
        encoded = self.model.encode(image)
        prepared, canvas = self.decoder.prepare(encoded), Canvas(encoded)
        kept: list[_KeptMask] = []
        point_filter = PointFilter(encoded, self.settings.similarity_threshold)
        done = _ENCODING_COST
        with worker_pool(self.model.device) as workers:
            for level in _levels(self.settings.points_per_side, encoded):
                waiting, kept_before = level, len(kept)
                while len(waiting := point_filter.remaining(waiting)):
                    report((done + len(level) - len(waiting)) / (_ENCODING_COST + self.settings.points_per_side**2))
                    points, waiting = waiting[: self._batch], waiting[self._batch :]
                    point_filter.add_prompts(points)
                    for mask in self._search(prepared, canvas, points.to(self.model.device), kept, workers):
                        kept.append(mask)
                        point_filter.add_mask(mask.pixels())
                done += len(level)
                if self.settings.similarity_threshold is not None and len(kept) == kept_before:
                    break  # finer points would bring the same masks again
        if kept:
            quality = torch.tensor([mask.quality for mask in kept], device=self.model.device)
            order = nms(torch.stack([mask.box for mask in kept]), quality, MAX_BOX_OVERLAP)
            kept = [kept[index] for index in order.tolist()]
        report(1.0)
        height, width = encoded.size
        packed = np.empty((len(kept), height, -(-width // 8)), np.uint8)
        for row, mask in zip(packed, kept, strict=True):
            row[:] = mask.packed
        return MaskProposals(packed, np.array([mask.quality for mask in kept], np.float32), width)

    def _search(
        self, prepared: PreparedImage, canvas: Canvas, points: Tensor, kept: Sequence[_KeptMask], workers: WorkerPool
    ) -> list[_KeptMask]:
        """The masks to keep at points (B, 2), x and y in pixels of the encoder's square, best first.

        Masks that duplicate one of the masks `kept` so far are left out.
        """
        pieces = workers.map(lambda piece: self._candidates(prepared, canvas, piece), workers.chunks(points))
        candidates = sorted((c for candidates in pieces for c in candidates), key=lambda c: -c.quality)
        new = [candidate for candidate in candidates if not candidate.is_duplicate(kept)]
        masks = workers.map(lambda candidate: self._mask(prepared, canvas, candidate), new)
        return [mask for mask in masks if mask]

    def _candidates(self, prepared: PreparedImage, canvas: Canvas, points: Tensor) -> list[_Candidate]:
        """The masks at points (B, 2) that neither predicted quality nor previews reject."""
        predictions = self.decoder.predict(prepared, points)
        promising = (predictions.quality > MIN_QUALITY).any(1).nonzero()[:, 0]
        if not len(promising):
            return []
        rows, columns = (-(-side // TOKEN) for side in canvas.encoded.scaled)
        previews = self.decoder.preview(prepared, predictions, promising)[..., :rows, :columns].flatten(0, 1)
        quality = predictions.quality[promising].flatten()
        size = (previews > 0).sum((-1, -2))
        stable = stability(previews) >= MIN_STABILITY - _PREVIEW_TOLERANCE
        passing = ((quality > MIN_QUALITY) & (stable | (size < _MIN_PREVIEW_SIZE))).nonzero()[:, 0]
        boxes = canvas.preview_boxes(previews[passing] > 0)
        rectangles = self._rectangles(previews[passing] > -OFFSET, points[promising[passing // MASKS]], prepared)
        return [
            _Candidate(
                predictions,
                promising[index // MASKS : index // MASKS + 1],
                index % MASKS,
                quality[index].item(),
                box if size[index] else None,
                cells,
            )
            for index, box, cells in zip(passing.tolist(), boxes, rectangles, strict=True)
        ]

    def _mask(self, prepared: PreparedImage, canvas: Canvas, candidate: _Candidate) -> _KeptMask | None:
        """The mask of a candidate, or None when it is not stable."""
        logits = self.decoder.mask_logits(prepared, candidate.predictions, candidate.point, candidate.cells)
        pixels, (rows, columns) = canvas.resize(logits[:, candidate.mask_index], candidate.cells)
        if stability(pixels) < MIN_STABILITY:
            return None
        mask = np.zeros(canvas.encoded.size, bool)
        mask[rows, columns] = (pixels[0] > 0).cpu().numpy()
        corner = torch.tensor([columns.start, rows.start], device=pixels.device).repeat(2)
        box = (tight_boxes(pixels > 0)[0] + corner).float()
        return _KeptMask(np.packbits(mask, axis=-1), mask.shape[1], box, candidate.quality)

    @staticmethod
    def _rectangles(previews: Tensor, points: Tensor, prepared: PreparedImage) -> list[tuple[slice, slice]]:
        """The rectangles of image tokens on which to compute the logits of masks.

        Args:
            previews: bool (N, rows, columns), previews of the masks.
            points: float (N, 2), the point that prompted each mask; every rectangle contains its point.
            prepared: the image.

        Returns:
            N pairs of rows and columns.
        """
        tokens = (points / TOKEN).long().repeat(1, 2)
        boxes = torch.where(previews.flatten(1).any(1, keepdim=True), tight_boxes(previews), tokens)
        first = torch.minimum(boxes[:, :2], tokens[:, :2]) - _MARGIN
        last = torch.maximum(boxes[:, 2:], tokens[:, 2:]) + _MARGIN
        rows, columns = prepared.upscaled.shape[:2]
        return [
            (slice(max(y0, 0), min(y1 + 1, rows)), slice(max(x0, 0), min(x1 + 1, columns)))
            for (x0, y0), (x1, y1) in zip(first.tolist(), last.tolist(), strict=True)
        ]


def _levels(side: int, encoded: EncodedImage) -> list[Tensor]:
    """The centres of side x side tiles of the image, (n, 2) x and y in the encoder's square, coarse points first.

    Every fourth row and column, then every second, then the black squares of a chessboard, then the rest.
    """
    index = torch.arange(side)
    rows, columns = torch.meshgrid(index, index, indexing="ij")
    level = 3 - ((rows + columns) % 2 == 0).int()
    level[1::2, 1::2] = 1
    level[1::4, 1::4] = 0
    height, width = encoded.scaled
    centres = torch.stack([(columns + 0.5) * width, (rows + 0.5) * height], -1) / side
    return [centres[level == i] for i in range(4)]
