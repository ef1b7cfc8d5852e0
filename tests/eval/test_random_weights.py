"""Random weights stand in for published files under the names of those."""

import pytest
import torch

from eval.benchmark.random_weights import BUILDERS
from ovseg_demo.methods.sed import checkpoint as sed
from ovseg_demo.methods.segclip import checkpoint as segclip
from ovseg_demo.methods.tagclip import checkpoint as tagclip
from ovseg_demo.weights import catalogue


@pytest.mark.parametrize(
    ("checkpoint_id", "count"),
    [
        ("clip-convnext-base-w-320", 493),
        ("clip-convnext-large-d-320", 543),
        ("sed-convnext-b", 608),
        ("sed-convnext-l", 658),
        ("sed-own", 608),
        ("segclip", 415),
        ("segclip-own", 415),
        ("tagclip-own", 352),
        ("zegclip-voc", 345),
        ("zegclip-coco-supervised", 345),
    ],
)
def test_tensors_are_named_as_in_the_file(checkpoint_id, count):
    """So many has each of the files, as dumped from the reference's modules; of TagCLIP's, so many are read."""
    with torch.device("meta"):
        state = BUILDERS[checkpoint_id]()
    assert len(state) == count
    for name, shape in catalogue.get(checkpoint_id).shapes.items():
        assert list(state[name].shape) == shape
    if checkpoint_id.startswith("sed"):
        parts = sed.split_checkpoint(state)
        assert (len(parts.clip), len(parts.decoder)) == (count - 115, 115)
    if checkpoint_id.startswith(("tagclip", "zegclip")):
        assert len(tagclip.split_checkpoint(state).clip) == 158 + 149
    if checkpoint_id.startswith("segclip"):
        parts = segclip.split_checkpoint(state)
        assert (len(parts.clip), len(parts.reconstruction)) == (345, 70)
