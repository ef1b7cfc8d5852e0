"""The whole model against a slow derivation that shares only names with it, under every setting.

The derivation reads one photo, view by view, head by head, query by query, in double precision. Against ours in double
precision the tolerance is 1e-9, and in single precision 1e-5, of embeddings, which are unit vectors, and of masks,
whose logits are a few units.
"""

from functools import cache, partial

import pytest
import torch
from torch import Tensor

from ovseg_demo.methods.mrovseg.model import Prediction
from tests.helpers import mrovseg_naive, tiny_mrovseg
from tests.helpers import mrovseg_naive_model as naive
from tests.helpers.oracle import drawn

CHANGES = [
    {},
    {"fusion_layers": (0, 1, 2), "fusion_points": (0, 1, 2)},
    {"fusion_points": (0, 2, 2, 3)},
    {"pyramid_layers": (1, 2, 4)},
    {"split": 3},
    {"adapter_width": tiny_mrovseg.WIDTH, "adapter_heads": 4},
    {"auxiliary_blocks": (1, 3)},
    {"slice_ratio": 0.75},
    {"slice_ratio": 1.0},
    {"adapter_positions": "first block"},
    {"adapter_positions": "none"},
    {"fusion_kernel": 5},
    {"fusion_norm": "both"},
    {"fusion_norm": "none"},
    {"attention_source": "high"},
    {"attention_source": "high", "slice_ratio": 0.75},
    {"biases_per_block": True},
    {"keys_advance": False},
    {"self_key": True},
    {"class_token": "mean"},
    {"adapter": False},
    {"fusion": False},
    {"masked_attention": False},
    {"single_resolution": True},
    {"single_resolution": True, "slice_ratio": 1.0},
]
SIZE = (32, 48)
"""Height and width of a photo in pixels: slices of 2 x 3 patches."""


def photo(size: tuple[int, int]) -> Tensor:
    return drawn(f"photo {size}", (3, *size))


@cache
def expected(items: tuple, size: tuple[int, int]) -> dict[int, naive.Answer]:
    model = tiny_mrovseg.build(**dict(items)).double()
    return naive.answer(
        model.state_dict(), model.settings, photo(size).double(), tiny_mrovseg.PATCH, tiny_mrovseg.HEADS
    )


def compare(found: Prediction, index: int, wanted: naive.Answer) -> None:
    """Predictions of a photo of a batch."""
    exact = found.masks.dtype == torch.float64
    close = partial(torch.testing.assert_close, atol=1e-9 if exact else 1e-5, rtol=0 if exact else 1e-5)
    close(found.masks[index], wanted.masks.to(found.masks))
    close(found.embeddings[index], wanted.embeddings.to(found.embeddings))


@pytest.mark.parametrize("changed", CHANGES, ids=str)
@torch.inference_mode()
def test_predictions_and_auxiliary_ones(changed):
    model = tiny_mrovseg.build(**changed).double()
    wanted = expected(tuple(changed.items()), SIZE)
    found = model.decode(model.features(photo(SIZE)[None].double()), auxiliary=True)
    *earlier, last = [wanted[block] for block in sorted(wanted)]
    compare(found, 0, last)
    assert len(found.auxiliary) == len(earlier)
    for own, other in zip(found.auxiliary, earlier, strict=True):
        compare(own, 0, other)
    assert found.scale_attention.shape[1] == len(last.attention)
    for own, other in zip(found.scale_attention[0], last.attention, strict=True):
        torch.testing.assert_close(own, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [SIZE, (48, 32), (16, 16), (16, 80)], ids=str)
@torch.inference_mode()
def test_a_batch_is_its_photos_one_by_one(size):
    model = tiny_mrovseg.build()
    others = drawn("other photos", (2, 3, *size))
    found = model(torch.stack([others[0], photo(size), others[1]]))
    compare(found, 1, expected((), size)[model.settings.adapter_blocks])
    for index, each in ((0, others[0]), (2, others[1])):
        alone = model(each[None])
        compare(found, index, naive.Answer(alone.masks[0], alone.embeddings[0], []))


@torch.inference_mode()
def test_class_logits():
    model = tiny_mrovseg.build()
    embeddings = torch.nn.functional.normalize(drawn("embeddings", (2, 5, tiny_mrovseg.EMBEDDING)), dim=2)
    texts = torch.nn.functional.normalize(drawn("texts", (7, tiny_mrovseg.EMBEDDING)), dim=1)
    found = model.class_logits(embeddings, texts)
    void = model.state_dict()["bg_embed"]
    for own, of_photo in zip(found, embeddings, strict=True):
        torch.testing.assert_close(own, mrovseg_naive.class_logits(of_photo, texts, void, 100.0), atol=1e-4, rtol=1e-5)
