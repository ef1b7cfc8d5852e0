"""Between two models."""

import pytest
import torch

from train.mini.weight_interpolation import interpolate_weights

BEGUN = {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([[1.0]])}
TRAINED = {"b": torch.tensor([[3.0]]), "a": torch.tensor([1.0, -2.0])}


@pytest.mark.parametrize(
    ("share", "a", "b"), [(0.0, [0.0, 2.0], 1.0), (0.25, [0.25, 1.0], 1.5), (1.0, [1.0, -2.0], 3.0)]
)
def test_every_tensor_goes_the_same_share_of_its_way(share, a, b):
    found = interpolate_weights(BEGUN, TRAINED, share)
    assert list(found) == ["a", "b"]
    assert found["a"].tolist() == a
    assert found["b"].tolist() == [[b]]


def test_neither_end_changes():
    interpolate_weights(BEGUN, TRAINED, 0.5)
    assert BEGUN["a"].tolist() == [0.0, 2.0]
    assert TRAINED["a"].tolist() == [1.0, -2.0]
