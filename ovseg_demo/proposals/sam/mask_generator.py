"""Everything-mode proposals of MobileSAM: a grid of points, each asking for up to three masks.

Keeps the masks that segment-anything's SamAutomaticMaskGenerator keeps, by the same thresholds, but turns most of
them down before they are drawn: by predicted quality, by a preview of one logit an image token, and by the box of a
better mask that is already there. What is drawn is drawn on its own rectangle only.
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
    """How much is asked.

    Attributes:
        side: rows and columns of points.
        alike: a point this much like one already asked is skipped, see Explored; None asks about every point.
    """

    side: int
    alike: float | None


SETTINGS = {"fast": SearchSettings(16, -0.2), "balanced": SearchSettings(16, 0.4), "thorough": SearchSettings(32, None)}
"""By name. "thorough" asks all that segment-anything's generator asks; docs/speed.md compares what they find."""

MIN_QUALITY = 0.88
MIN_STABILITY = 0.95
MAX_BOX_OVERLAP = 0.7

_BATCH = 8  # points at once on a CPU: their maps just fit into the last cache of a common one
_GPU_BATCH = 128  # on a GPU: half a gigabyte of maps
_ENCODING_COST = 75  # encoding the image takes about as long as this many points
_SLACK = 0.05  # a preview's stability may be this far below the threshold
_SMALL = 30  # previews of fewer logits than this say nothing about stability
_MARGIN = 6  # image tokens around a preview's positive logits: what lies apart from the mask costs it stability


@dataclass(frozen=True)
class _Candidate:
    """A mask that may pass, before it is drawn.

    Attributes:
        answers: of the batch that it is from.
        point: which of them, int (1,).
        which: which of the point's masks.
        quality: predicted IoU with a true object.
        outline: float32 (4,), its box as far as a preview tells; None for one too small to tell.
        cells: rows and columns of image tokens to draw.
    """

    answers: PointPredictions
    point: Tensor
    which: int
    quality: float
    outline: Tensor | None
    cells: tuple[slice, slice]

    def hidden(self, found: Sequence["_Found"]) -> bool:
        """Whether a better mask has about the same box."""
        better = [f.box for f in found if f.quality > self.quality]
        if self.outline is None or not better:
            return False
        return bool(box_iou(self.outline[None], torch.stack(better)).max() > MAX_BOX_OVERLAP)


@dataclass(frozen=True)
class _Found:
    """A mask that passed.

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
        """bool (H, W)."""
        return np.unpackbits(self.packed, axis=-1, count=self.width).view(bool)


class SamMaskGenerator:
    """Masks of everything in an image, best predicted quality first.

    Args:
        model: MobileSAM, loaded and on its device.
        setting: a name in SETTINGS.

    Raises MethodError for an unknown setting.
    """

    def __init__(self, model: MobileSam, setting: str = "balanced") -> None:
        if setting not in SETTINGS:
            raise MethodError(f"Unknown proposal setting '{setting}'; choose one of {', '.join(SETTINGS)}.")
        self.model = model
        self.decoder = PointDecoder(model)
        self.setting = SETTINGS[setting]
        self.name = f"sam-{setting}"
        self._batch = _BATCH if model.device.type == "cpu" else _GPU_BATCH

    @torch.inference_mode()
    def propose(self, image: np.ndarray, report: Report) -> MaskProposals:
        """Masks of an RGB image, uint8 (H, W, 3). `report` is called once every few points and may raise."""
        report(0.0)
        encoded = self.model.encode(image)
        view, canvas = self.decoder.view(encoded), Canvas(encoded)
        found: list[_Found] = []
        explored = PointFilter(encoded, self.setting.alike)
        done = _ENCODING_COST
        with worker_pool(self.model.device) as workers:
            for level in _levels(self.setting.side, encoded):
                waiting, known = level, len(found)
                while len(waiting := explored.unanswered(waiting)):
                    report((done + len(level) - len(waiting)) / (_ENCODING_COST + self.setting.side**2))
                    points, waiting = waiting[: self._batch], waiting[self._batch :]
                    explored.ask(points)
                    for mask in self._search(view, canvas, points.to(self.model.device), found, workers):
                        found.append(mask)
                        explored.add(mask.pixels())
                done += len(level)
                if self.setting.alike is not None and len(found) == known:
                    break  # finer points would ask the same again
        if found:
            quality = torch.tensor([f.quality for f in found], device=self.model.device)
            kept = nms(torch.stack([f.box for f in found]), quality, MAX_BOX_OVERLAP)
            found = [found[i] for i in kept.tolist()]
        report(1.0)
        height, width = encoded.size
        packed = np.empty((len(found), height, -(-width // 8)), np.uint8)
        for row, f in zip(packed, found, strict=True):
            row[:] = f.packed
        return MaskProposals(packed, np.array([f.quality for f in found], np.float32), width)

    @torch.inference_mode()
    def masks_at(self, image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The three masks at each of some points, none turned down.

        Args:
            image: uint8 (H, W, 3), RGB.
            points: float (N, 2), x and y in pixels of the image.

        Returns:
            Masks, bool (N, 3, H, W), and their predicted quality, float32 (N, 3).
        """
        encoded = self.model.encode(image)
        view, canvas = self.decoder.view(encoded), Canvas(encoded)
        factors = torch.tensor([s / size for s, size in zip(encoded.scaled, encoded.size, strict=True)]).flip(0)
        scaled = (torch.as_tensor(points) * factors).float().to(self.model.device)
        cells = tuple(slice(0, n) for n in encoded.cells)
        masks, quality = [], []
        for batch in scaled.split(self._batch):
            answers = self.decoder.ask(view, batch)
            logits = self.decoder.draw(view, answers, torch.arange(len(batch)), cells)
            masks.append(canvas.draw(logits, cells)[0] > 0)
            quality.append(answers.quality)
        return torch.cat(masks).cpu().numpy(), torch.cat(quality).cpu().numpy()

    def _search(
        self, view: PreparedImage, canvas: Canvas, points: Tensor, found: Sequence[_Found], workers: WorkerPool
    ) -> list[_Found]:
        """The masks at points (B, 2), x and y in pixels of the encoder's square, that pass, best first.

        Those that a better one of `found` hides are turned down.
        """
        pieces = workers.map(lambda piece: self._candidates(view, canvas, piece), workers.chunks(points))
        candidates = sorted((c for piece in pieces for c in piece), key=lambda c: -c.quality)
        hopeful = [c for c in candidates if not c.hidden(found)]
        drawn = workers.map(lambda candidate: self._drawn(view, canvas, candidate), hopeful)
        return [mask for mask in drawn if mask]

    def _candidates(self, view: PreparedImage, canvas: Canvas, points: Tensor) -> list[_Candidate]:
        """The masks at points (B, 2) that pass as far as quality and previews tell."""
        answers = self.decoder.ask(view, points)
        asked = (answers.quality > MIN_QUALITY).any(1).nonzero()[:, 0]
        if not len(asked):
            return []
        rows, columns = (-(-side // TOKEN) for side in canvas.encoded.scaled)
        previews = self.decoder.preview(view, answers, asked)[..., :rows, :columns].flatten(0, 1)
        quality = answers.quality[asked].flatten()
        size = (previews > 0).sum((-1, -2))
        steady = stability(previews) >= MIN_STABILITY - _SLACK
        passing = ((quality > MIN_QUALITY) & (steady | (size < _SMALL))).nonzero()[:, 0]
        outlines = canvas.outlines(previews[passing] > 0)
        reaches = self._reaches(previews[passing] > -OFFSET, points[asked[passing // MASKS]], view)
        return [
            _Candidate(
                answers,
                asked[index // MASKS : index // MASKS + 1],
                index % MASKS,
                quality[index].item(),
                outline if size[index] else None,
                cells,
            )
            for index, outline, cells in zip(passing.tolist(), outlines, reaches, strict=True)
        ]

    def _drawn(self, view: PreparedImage, canvas: Canvas, candidate: _Candidate) -> _Found | None:
        """The mask, or None when it is not stable."""
        logits = self.decoder.draw(view, candidate.answers, candidate.point, candidate.cells)[:, candidate.which]
        pixels, place = canvas.draw(logits, candidate.cells)
        if stability(pixels) < MIN_STABILITY:
            return None
        mask = np.zeros(canvas.encoded.size, bool)
        mask[place] = (pixels[0] > 0).cpu().numpy()
        corner = torch.tensor([place[1].start, place[0].start], device=pixels.device).repeat(2)
        box = (tight_boxes(pixels > 0)[0] + corner).float()
        return _Found(np.packbits(mask, axis=-1), mask.shape[1], box, candidate.quality)

    @staticmethod
    def _reaches(previews: Tensor, points: Tensor, view: PreparedImage) -> list[tuple[slice, slice]]:
        """Rows and columns of image tokens to draw for each preview, bool (N, rows, columns), and its point (N, 2)."""
        home = (points / TOKEN).long().repeat(1, 2)
        boxes = torch.where(previews.flatten(1).any(1, keepdim=True), tight_boxes(previews), home)
        first = torch.minimum(boxes[:, :2], home[:, :2]) - _MARGIN
        last = torch.maximum(boxes[:, 2:], home[:, 2:]) + _MARGIN
        rows, columns = view.upscaled.shape[:2]
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
