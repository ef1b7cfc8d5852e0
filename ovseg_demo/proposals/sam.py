"""Everything-mode proposals of MobileSAM: a grid of points, each asking for up to three masks.

Keeps the masks that segment-anything's SamAutomaticMaskGenerator keeps, by the same thresholds, but turns most of
them down before they are drawn: by predicted quality, by a preview of one logit an image token, and by the box of a
better mask that is already there. What is drawn is drawn on its own rectangle only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from ovseg_demo.errors import MethodError
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.proposals.decoder import MASKS, PointDecoder, View
from ovseg_demo.proposals.masks import OFFSET, Canvas, stability, tight_boxes
from ovseg_demo.proposals.mobile_sam import TOKEN, Encoded, MobileSam

POINTS_A_SIDE = {"fast": 10, "balanced": 16, "thorough": 32}
"""The settings by name: how many rows and columns of points are asked about."""
MIN_QUALITY = 0.88
MIN_STABILITY = 0.95
MAX_BOX_OVERLAP = 0.7

_BATCH = 8  # points at once: their maps just fit into the last cache of a common processor
_ENCODING_COST = 130  # encoding the image takes about as long as this many points
_SLACK = 0.05  # a preview's stability may be this far below the threshold
_SMALL = 30  # previews of fewer logits than this say nothing about stability
_MARGIN = 6  # image tokens around a preview's positive logits: what lies apart from the mask costs it stability


@dataclass(frozen=True)
class _Found:
    """A mask that passed.

    Attributes:
        packed: uint8 (H, ceil(W / 8)), as in MaskProposals.
        box: float32 (4,), x0, y0, x1, y1 in image pixels, all inclusive.
        quality: predicted IoU with a true object.
    """

    packed: np.ndarray
    box: Tensor
    quality: float


class SamProposals:
    """Masks of everything in an image, best predicted quality first.

    Args:
        model: MobileSAM, loaded and on its device.
        setting: one of POINTS_A_SIDE.

    Raises MethodError for an unknown setting.
    """

    def __init__(self, model: MobileSam, setting: str = "balanced") -> None:
        if setting not in POINTS_A_SIDE:
            raise MethodError(f"Unknown proposal setting '{setting}'; choose one of {', '.join(POINTS_A_SIDE)}.")
        self.model = model
        self.decoder = PointDecoder(model)
        self.side = POINTS_A_SIDE[setting]
        self.name = f"sam-{setting}"

    @torch.inference_mode()
    def propose(self, image: np.ndarray, report: Report) -> MaskProposals:
        """Masks of an RGB image, uint8 (H, W, 3). `report` is called once every few points and may raise."""
        report(0.0)
        encoded = self.model.encode(image)
        view, canvas = self.decoder.view(encoded), Canvas(encoded)
        grid = _grid(self.side, encoded).to(self.model.device)
        found: list[_Found] = []
        for start in range(0, len(grid), _BATCH):
            report((_ENCODING_COST + start) / (_ENCODING_COST + len(grid)))
            self._search(view, canvas, grid[start : start + _BATCH], found)
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
        for batch in scaled.split(_BATCH):
            answers = self.decoder.ask(view, batch)
            logits = self.decoder.draw(view, answers, torch.arange(len(batch)), cells)
            masks.append(canvas.draw(logits, cells)[0] > 0)
            quality.append(answers.quality)
        return torch.cat(masks).cpu().numpy(), torch.cat(quality).cpu().numpy()

    def _search(self, view: View, canvas: Canvas, points: Tensor, found: list[_Found]) -> None:
        """Append the masks that pass, and that no better one found so far hides.

        Args:
            points: (B, 2), x and y in pixels of the encoder's square.
            found: extended in place.
        """
        answers = self.decoder.ask(view, points)
        asked = (answers.quality > MIN_QUALITY).any(1).nonzero()[:, 0]
        if not len(asked):
            return
        encoded = canvas.encoded
        rows, columns = (-(-side // TOKEN) for side in encoded.scaled)
        previews = self.decoder.preview(view, answers, asked)[..., :rows, :columns].flatten(0, 1)
        quality = answers.quality[asked].flatten()
        size = (previews > 0).sum((-1, -2))
        steady = stability(previews) >= MIN_STABILITY - _SLACK
        passing = ((quality > MIN_QUALITY) & (steady | (size < _SMALL))).nonzero()[:, 0]
        passing = passing[quality[passing].argsort(descending=True)]
        outlines = canvas.outlines(previews[passing] > 0)
        reaches = self._reaches(previews[passing] > -OFFSET, points[asked[passing // MASKS]], view)
        for index, outline, cells in zip(passing.tolist(), outlines, reaches, strict=True):
            score = quality[index].item()
            better = [f.box for f in found if f.quality > score]
            if better and size[index] and box_iou(outline[None], torch.stack(better)).max() > MAX_BOX_OVERLAP:
                continue
            point = asked[index // MASKS : index // MASKS + 1]
            logits = self.decoder.draw(view, answers, point, cells)[:, index % MASKS]
            pixels, place = canvas.draw(logits, cells)
            if stability(pixels) < MIN_STABILITY:
                continue
            mask = np.zeros(encoded.size, bool)
            mask[place] = (pixels[0] > 0).cpu().numpy()
            corner = torch.tensor([place[1].start, place[0].start], device=pixels.device).repeat(2)
            box = (tight_boxes(pixels > 0)[0] + corner).float()
            found.append(_Found(np.packbits(mask, axis=-1), box, score))

    @staticmethod
    def _reaches(previews: Tensor, points: Tensor, view: View) -> list[tuple[slice, slice]]:
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


def _grid(side: int, encoded: Encoded) -> Tensor:
    """The centres of side x side tiles of the image, (side * side, 2) x and y in the encoder's square, row by row."""
    centres = (torch.arange(side) + 0.5) / side
    height, width = encoded.scaled
    return torch.cartesian_prod(centres * height, centres * width).flip(-1)
