"""Everything mode: the stock generator's masks, every image shape, progress and cancelling."""

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from torch.nn import functional as F

from ovseg_demo.errors import Cancelled, MethodError
from ovseg_demo.proposals.sam import mask_generator
from ovseg_demo.proposals.sam.mask_generator import SamMaskGenerator
from ovseg_demo.proposals.sam.mask_logits import Canvas, stability, tight_boxes
from ovseg_demo.proposals.sam.mobile_sam import EncodedImage
from tests.helpers.paths import GALLERY


def ignore_progress(fraction: float) -> None:
    """A report for tests that do not look at progress."""


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(GALLERY / "tram_bus_street.jpg").convert("RGB"))


@pytest.fixture
def few_points(monkeypatch):
    monkeypatch.setitem(mask_generator.SETTINGS, "balanced", mask_generator.SearchSettings(5, None))


@pytest.mark.usefixtures("few_points")
def test_masks_are_the_stock_generators(mobile_sam, photo):
    mobile_sam.image_encoder.img_size = 1024
    stock = Sam(mobile_sam.image_encoder, mobile_sam.prompt_encoder, mobile_sam.mask_decoder).eval()
    records = SamAutomaticMaskGenerator(stock, points_per_side=5, points_per_batch=8).generate(photo)
    wanted = np.stack([record["segmentation"] for record in records]).reshape(len(records), -1).astype(np.float32)
    proposals = SamMaskGenerator(mobile_sam).propose(photo, ignore_progress)
    found = proposals.masks().reshape(len(proposals), -1).astype(np.float32)
    common = wanted @ found.T
    overlap = common / (wanted.sum(1)[:, None] + found.sum(1) - common)
    matched = overlap.max(1) >= 0.95
    assert matched.mean() >= 0.95
    assert (overlap.max(0) >= 0.95).mean() >= 0.85
    assert proposals.size == photo.shape[:2]
    assert (np.diff(proposals.scores) <= 0).all()
    assert (proposals.scores > mask_generator.MIN_QUALITY).all()
    wanted_scores = np.array([record["predicted_iou"] for record in records])
    np.testing.assert_allclose(proposals.scores[overlap.argmax(1)][matched], wanted_scores[matched], atol=0.02)


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1, 500), (500, 1), (37, 1301), (333, 150)])
def test_any_shape(mobile_sam, photo, size):
    image = np.asarray(Image.fromarray(photo).resize(size[::-1]))
    proposals = SamMaskGenerator(mobile_sam).propose(image, ignore_progress)
    assert proposals.size == size
    assert proposals.masks().shape == (len(proposals), *size)
    assert proposals.masks().any((1, 2)).all()


@pytest.mark.usefixtures("few_points")
def test_nothing_passes(mobile_sam, monkeypatch):
    monkeypatch.setattr(mask_generator, "MIN_QUALITY", 2.0)
    proposals = SamMaskGenerator(mobile_sam).propose(np.zeros((30, 45, 3), np.uint8), ignore_progress)
    assert len(proposals) == 0
    assert proposals.masks().shape == (0, 30, 45)
    assert proposals.scores.shape == (0,)


@pytest.mark.usefixtures("few_points")
def test_report_rises_to_one(mobile_sam, photo):
    fractions: list[float] = []
    SamMaskGenerator(mobile_sam).propose(photo, fractions.append)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)
    assert len(fractions) >= 5


def test_report_may_cancel(mobile_sam, photo):
    fractions: list[float] = []

    def cancel(fraction: float) -> None:
        fractions.append(fraction)
        if len(fractions) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        SamMaskGenerator(mobile_sam).propose(photo, cancel)
    assert len(fractions) == 3


def test_unknown_setting(mobile_sam):
    with pytest.raises(MethodError, match="balanced"):
        SamMaskGenerator(mobile_sam, "perfect")


def test_points_come_coarse_first_and_each_once():
    levels = mask_generator._levels(7, EncodedImage(torch.zeros(1), size=(53, 80), scaled=(678, 1024)))
    points = {tuple(point) for level in levels for point in level.tolist()}
    assert len(points) == sum(map(len, levels)) == 49
    assert len(levels[0]) == 4
    assert all(0 < x < 1024 and 0 < y < 678 for x, y in points)


def test_redundant_points_are_skipped(mobile_sam, photo, monkeypatch):
    prompted: dict[str, int] = {}
    masks: dict[str, int] = {}
    for name in ("fast", "balanced"):
        proposals, search = SamMaskGenerator(mobile_sam, name), SamMaskGenerator._search

        def count(self, prepared, canvas, points, *rest, name=name, search=search):
            prompted[name] = prompted.get(name, 0) + len(points)
            return search(self, prepared, canvas, points, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(SamMaskGenerator, "_search", count)
            masks[name] = len(proposals.propose(photo, ignore_progress))
    assert prompted["fast"] < prompted["balanced"] < 256
    assert 10 < masks["fast"] <= masks["balanced"]


def test_canvas_resizes_as_segment_anything_does():
    torch.manual_seed(0)
    encoded = EncodedImage(torch.zeros(1), size=(53, 80), scaled=(678, 1024))
    logits = torch.randn(2, 256, 256)
    square = F.interpolate(logits[:, None], (1024, 1024), mode="bilinear")[..., :678, :1024]
    wanted = F.interpolate(square, (53, 80), mode="bilinear")[:, 0]
    canvas = Canvas(encoded)

    whole, pixels = canvas.resize(logits[:, : 4 * encoded.cells[0]], (slice(0, encoded.cells[0]), slice(0, 64)))
    assert pixels == (slice(0, 53), slice(0, 80))
    torch.testing.assert_close(whole, wanted, rtol=1e-4, atol=1e-5)

    part, pixels = canvas.resize(logits[:, 40:80, 100:180], (slice(10, 20), slice(25, 45)))
    assert part[0].numel() > 0
    torch.testing.assert_close(part, wanted[:, *pixels], rtol=1e-4, atol=1e-5)


def test_stability():
    logits = torch.tensor([[[2.0, 0.5, -0.5, -2.0]], [[-3.0, -3.0, -3.0, -3.0]], [[5.0, 5.0, -5.0, -5.0]]])
    torch.testing.assert_close(stability(logits), torch.tensor([1 / 3, 0.0, 1.0]))


def test_tight_boxes_are_inclusive():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 1:4, 2:7] = True
    assert tight_boxes(masks).tolist() == [[2, 1, 6, 3], [0, 0, 0, 0]]
