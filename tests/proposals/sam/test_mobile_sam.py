"""MobileSAM: strict weights, the reference's masks, and the decoder's shortcuts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from timm.models.tiny_vit import Attention
from torch import nn
from torch.nn import functional as F

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.sam.mask_logits import Canvas
from ovseg_demo.proposals.sam.mobile_sam import ImageEncoder, MobileSam, rename_tensors
from ovseg_demo.proposals.sam.point_decoder import PointDecoder
from ovseg_demo.weights.loading import load_state_dict, load_strict
from tests.helpers.paths import FIXTURES, GALLERY

REFERENCE = json.loads((FIXTURES / "mobile_sam.json").read_text(encoding="utf-8"))


def test_every_published_tensor_is_used_or_known_to_be_unused():
    published = load_state_dict("mobile-sam")
    state = rename_tensors(published)
    assert state.keys() == MobileSam().state_dict().keys()
    assert len(published) - len(state) == 4  # weight and bias of TinyViT's classifier and of the norm before it


@pytest.mark.parametrize("prefix", ["image_encoder.layers.2.blocks.5.attn", "mask_decoder.iou_token", "prompt_encoder"])
def test_missing_tensors_are_named(prefix):
    published = {k: v for k, v in load_state_dict("mobile-sam").items() if not k.startswith(prefix)}
    with pytest.raises(CheckpointError, match="missing"):
        load_strict(MobileSam(), rename_tensors(published), "cut.pt")


def test_unexpected_tensors_are_named():
    published = load_state_dict("mobile-sam") | {"image_encoder.layers.4.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected \(image_encoder\.trunk\.stages\.4\.weight\)"):
        load_strict(MobileSam(), rename_tensors(published), "long.pt")


@pytest.fixture(scope="module")
def published() -> ImageEncoder:
    """The encoder as published, for the whole square: timm's layers, nothing fused."""
    model = MobileSam()
    load_strict(model, rename_tensors(load_state_dict("mobile-sam")), "mobile_sam.pt")
    return model.image_encoder


@pytest.mark.parametrize(
    "size", [(683, 1024), (768, 1024), (1024, 577), (1024, 1003), (1024, 1024), (3, 1024)], ids=str
)
def test_fast_encoder_equals_the_published_one(mobile_sam, published, size):
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    padded = F.pad(pixels, (0, 1024 - size[1], 0, 1024 - size[0]))
    with torch.inference_mode():
        wanted = published.neck(published.trunk.forward_features(padded))
        torch.testing.assert_close(mobile_sam.image_encoder(pixels), wanted, rtol=0, atol=2e-5)


def test_nothing_is_left_to_fuse(mobile_sam):
    left = [type(m) for m in mobile_sam.image_encoder.modules() if isinstance(m, (nn.BatchNorm2d, Attention))]
    assert not left


@torch.inference_mode()
def masks_at(mobile_sam, image, points):
    """The three masks at each of N points (x, y) of an image, bool (N, 3, H, W), and their predicted quality."""
    encoded, decoder = mobile_sam.encode(image), PointDecoder(mobile_sam)
    scale = torch.tensor([scaled / size for scaled, size in zip(encoded.scaled, encoded.size, strict=True)]).flip(0)
    prepared, cells = decoder.prepare(encoded), tuple(slice(0, count) for count in encoded.cells)
    predictions = decoder.predict(prepared, (points * scale).float())
    logits = decoder.mask_logits(prepared, predictions, torch.arange(len(points)), cells)
    return (Canvas(encoded).resize(logits, cells)[0] > 0).numpy(), predictions.quality.numpy()


@pytest.mark.parametrize("photo", REFERENCE["photos"], ids=lambda photo: photo["file"])
def test_masks_at_points_are_the_reference_ones(mobile_sam, photo):
    image = np.asarray(Image.open(GALLERY / photo["file"]).convert("RGB"))
    masks, quality = masks_at(mobile_sam, image, torch.tensor(photo["points"], dtype=torch.double))
    np.testing.assert_allclose(quality, photo["quality"], atol=1e-3)
    for trio, runs in zip(masks, photo["masks"], strict=True):
        for mask, run in zip(trio, runs, strict=True):
            wanted = coco.decode({"size": photo["size"], "counts": run}).astype(bool)
            overlap = (mask & wanted).sum() / max((mask | wanted).sum(), 1)
            assert overlap >= 0.99


@pytest.fixture(scope="module")
def photo(mobile_sam):
    return mobile_sam.encode(np.asarray(Image.open(GALLERY / "tram_bus_street.jpg").convert("RGB")))


@pytest.mark.parametrize("count", [1, 7])
def test_shared_decoder_equals_the_published_one(mobile_sam, photo, count):
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) * 1024
    with torch.inference_mode():
        sparse, dense = mobile_sam.prompt_encoder((points[:, None], torch.ones(count, 1)), None, None)
        position = mobile_sam.prompt_encoder.get_dense_pe()
        logits, quality = mobile_sam.mask_decoder(photo.features, position, sparse, dense, multimask_output=True)
        decoder = PointDecoder(mobile_sam)
        prepared, every_point = decoder.prepare(photo), torch.arange(count)
        predictions = decoder.predict(prepared, points)
        rows, columns = photo.cells
        torch.testing.assert_close(predictions.quality, quality, rtol=1e-4, atol=1e-4)

        whole = decoder.mask_logits(prepared, predictions, every_point, (slice(0, rows), slice(0, columns)))
        torch.testing.assert_close(whole, logits[:, :, : 4 * rows, : 4 * columns], rtol=1e-4, atol=1e-4)

        part = decoder.mask_logits(prepared, predictions, every_point[-1:], (slice(5, 9), slice(20, 31)))
        torch.testing.assert_close(part, logits[-1:, :, 20:36, 80:124], rtol=1e-4, atol=1e-4)

        preview = decoder.preview(prepared, predictions, every_point)
        torch.testing.assert_close(preview, whole[:, :, 2::4, 1::4], rtol=1e-4, atol=1e-4)
