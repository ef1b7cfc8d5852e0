"""How many parameters and operations the published sizes have, beside what the design and the paper's table 5 lead to.

The design, summed up by hand in advance, has 147 M parameters and 687 GFLOP for ViT-B/16 at 640 x 640 pixels; the paper
gives 162.1 M and 640.4 GFLOP. Ours has 151.5 M, 2.9 M more in the fusion modules and 1.2 M of positions, and 681 GFLOP.
"""

from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.settings import SETTINGS
from ovseg_demo.models.clip.weights import build_empty_clip


@pytest.fixture(scope="module")
def model() -> MROVSeg:
    """ViT-B/16 without numbers."""
    settings = SETTINGS["ViT-B-16"]
    with torch.device("meta"):
        return MROVSeg(build_empty_clip(settings.architecture).visual, settings).eval()


def test_parameters(model):
    counts = Counter()
    for name, parameter in model.named_parameters():
        counts[name.split(".")[0].split("_")[0]] += parameter.numel()
    millions = {name: round(count / 1e6, 2) for name, count in counts.items()}
    assert millions == {
        "clip": 86.19,
        "adapter": 43.91,
        "mrf": 8.91,
        "hier": 9.44,
        "mlp": 2.96,
        "bias": 0.0,
        "prop": 0.08,
        "bg": 0.0,
    }
    assert sum(counts.values()) / 1e6 == pytest.approx(147, rel=0.05)
    assert sum(counts.values()) / 1e6 == pytest.approx(162.1, rel=0.1)


def test_operations(model):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 640, 640, device="meta"))
    operations = counter.get_total_flops() / 1e9
    assert operations == pytest.approx(687, rel=0.02)
    assert operations == pytest.approx(640.4, rel=0.1)


def test_shapes_of_the_published_size(model):
    """Masks of 160 x 160 and biases over 400 and 1600 patches (sections 3.5 and 3.6)."""
    with torch.inference_mode():
        features = model.features(torch.zeros(1, 3, 640, 640, device="meta"))
        found = model.decode(features)
    assert found.masks.shape == (1, 100, 160, 160)
    assert found.embeddings.shape == (1, 100, 512)
    assert {each.shape for each in features.low.values()} == {(1, 20, 20, 768)}
    assert {each.shape for each in features.high.values()} == {(1, 40, 40, 768)}


@pytest.mark.parametrize(
    ("name", "fusion", "split", "side"),
    [("ViT-B-16", (0, 3, 6, 9, 12), 9, 640), ("ViT-L-14-336", (0, 6, 12, 18, 24), 18, 672)],
)
def test_published_layers(name, fusion, split, side):
    """Table 4(d), section 3.5, section 3.6; the side of ViT-L/14 is ours."""
    settings = SETTINGS[name]
    assert (settings.fusion_layers, settings.pyramid_layers) == (fusion, fusion[1:4])
    assert (settings.split, settings.short_side) == (split, side)
