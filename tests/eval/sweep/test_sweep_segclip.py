"""The background threshold of SegCLIP, swept over a model of narrow layers."""

import numpy as np
import pytest

from eval import protocol, runner
from eval.metrics import Confusion
from eval.sweep import measurement
from eval.sweep.measurement import SweepRecord
from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry, windows
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.segclip.encoder import SegCLIPEncoder
from ovseg_demo.methods.segclip.method import SegCLIP
from ovseg_demo.methods.segclip.options import SegCLIPOptions
from tests.helpers import evaluation_fakes as fakes
from tests.helpers import segclip_models

COUNT = 2


class Counted(SegCLIPEncoder):
    """Counts how often it reads a photo."""

    readings = 0

    def read_windows(self, *arguments):
        self.readings += 1
        return super().read_windows(*arguments)


@pytest.fixture
def encoder(tmp_path, monkeypatch) -> Counted:
    monkeypatch.setattr(windows, "WINDOW", segclip_models.SIDE)
    segclip_models.register(tmp_path)
    encoder = Counted(
        segclip_models.published(),
        "swept",
        source="tiny",
        architecture=segclip_models.ARCHITECTURE,
        precision="float32",
    )
    spec = MethodSpec("tiny-segclip", "tiny", "", (), lambda _: SegCLIP(encoder), SegCLIPOptions)
    monkeypatch.setitem(registry.REGISTRY, "tiny-segclip", spec)
    return encoder


def test_every_threshold_from_one_reading(encoder, tmp_path):
    fakes.draw(tmp_path / "set", COUNT, (50, 70))
    dataset = fakes.read(tmp_path / "set")
    sweep = protocol.Sweep("background", (0.0, 0.05, 0.3, 0.5, 1.0), None, SegCLIPOptions(image_prior=False))
    measurement.measure(Engine("cpu"), dataset, "tiny-segclip", sweep, tmp_path / "sweep")
    assert encoder.readings == COUNT
    records, _ = runner.collect_records(dataset, tmp_path / "sweep", SweepRecord)
    left = []
    for place, value in enumerate(sweep.values):
        total = Confusion(len(fakes.NAMES))
        for record in records:
            total.add_sparse(record.confusions[place])
        folder = tmp_path / str(value)
        runner.evaluate(Engine("cpu"), dataset, "tiny-segclip", sweep.at(value), folder)
        assert np.array_equal(total.counts, runner.collect(dataset, folder).confusion.counts)
        left.append(total.scores().predicted[fakes.REST])
    assert left[0] == 0, "a threshold of 0 leaves no pixel to the background"
    assert left == sorted(left)
    assert left[-1] > left[0]
