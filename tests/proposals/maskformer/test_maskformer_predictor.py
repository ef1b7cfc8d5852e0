import json

import numpy as np
import pytest
import torch

from ovseg_demo.proposals.maskformer.predictor import MaskFormerPredictor, normalise_and_pad
from ovseg_demo.runtime.preprocess import scaled_size
from tests.helpers.maskformer_models import SIDES, small
from tests.helpers.oracle import drawn_image, sampled
from tests.helpers.paths import FIXTURES

REFERENCE = json.loads((FIXTURES / "maskformer.json").read_text())


@pytest.mark.parametrize("backbone", ["r101c", "swinb"])
def test_a_photo_is_read_as_by_the_reference(backbone):
    output = MaskFormerPredictor(small(backbone), *SIDES).predict(drawn_image())
    assert output.pixels.dtype == np.uint8
    read = {
        "classes": output.class_embeddings,
        "masks": torch.cat([*output.enlarged_mask_logits()]),
        "pixels": torch.from_numpy(output.pixels).float(),
    }
    for what, found in read.items():
        wanted = REFERENCE[backbone][f"read {what}"]
        assert list(found.shape) == wanted["shape"]
        torch.testing.assert_close(sampled(found), torch.tensor(wanted["values"]), atol=1e-4, rtol=0)
    assert output.nbytes == sum(found.nbytes for found in (output.class_embeddings, output.mask_logits)) + 59 * 90 * 3


def test_padding_is_zero_after_normalising_on_the_right_and_below():
    pixels = np.full((33, 30, 3), (200, 100, 50), np.uint8)
    x = normalise_and_pad(pixels)
    assert x.shape == (1, 3, 64, 32)
    assert x[0, :, 32, 29].tolist() == pytest.approx(
        [(200 - 123.675) / 58.395, (100 - 116.28) / 57.12, (50 - 103.53) / 57.375]
    )
    assert x[0, :, 33:].abs().max() == 0
    assert x[0, :, :, 30:].abs().max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (70, 2)])
def test_photos_of_any_size_are_read(size):
    output = MaskFormerPredictor(small("swinb"), *SIDES).predict(np.zeros((*size, 3), np.uint8))
    assert next(output.enlarged_mask_logits()).shape[1:] == output.pixels.shape[:2] == scaled_size(size, *SIDES)
