"""Random weights stand in for published files under the names of those."""

import pytest
import torch

from eval.benchmark.random_weights import BUILDERS
from ovseg_demo import checkpoints
from ovseg_demo.methods.sed.released import split


@pytest.mark.parametrize(
    ("checkpoint_id", "count"),
    [
        ("clip-convnext-base-w-320", 493),
        ("clip-convnext-large-d-320", 543),
        ("sed-convnext-b", 608),
        ("sed-convnext-l", 658),
        ("sed-own", 608),
    ],
)
def test_tensors_are_named_as_in_the_file(checkpoint_id, count):
    """So many has each of the files, as dumped from the reference's modules."""
    with torch.device("meta"):
        state = BUILDERS[checkpoint_id]()
    assert len(state) == count
    for name, shape in checkpoints.get(checkpoint_id).shapes.items():
        assert list(state[name].shape) == shape
    if "sed" in checkpoint_id:
        parts = split(state)
        assert (len(parts.clip), len(parts.decoder)) == (count - 115, 115)
