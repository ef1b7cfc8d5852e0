"""The benchmark of MROVSeg on a small model, and its plain implementation; times are never asserted."""

from dataclasses import replace

import pytest
import torch

from eval.benchmark import mrovseg, paired_timing
from eval.benchmark.__main__ import main
from eval.benchmark.mrovseg_plain import PlainMROVSeg
from ovseg_demo.methods.mrovseg.settings import SETTINGS
from ovseg_demo.models.clip.weights import build_empty_clip, load_clip_weights, vision_transformer
from tests.helpers import mrovseg_models
from tests.helpers.mrovseg_models import ARCHITECTURE

MODEL = "ViT-B-16"


@pytest.fixture
def small(tmp_path, monkeypatch) -> None:
    """A small model and a small photo, measured in this process."""
    mrovseg_models.register(tmp_path)
    monkeypatch.setitem(SETTINGS, MODEL, replace(mrovseg_models.SETTINGS, queries=20))
    monkeypatch.setattr(mrovseg, "SIZE", (90, 70))
    monkeypatch.setattr(mrovseg, "alone", lambda work, *arguments: work(*arguments))


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_the_command_compares_ours_with_the_plain_one(small, native, monkeypatch, capsys):
    monkeypatch.setattr(paired_timing, "native_precision", lambda _: native)
    assert main(["mrovseg", "--classes", "12", "--repeats", "1"]) == 0
    about, _, times, _, *lines = capsys.readouterr().out.splitlines()
    assert about.startswith(f"{MODEL}, random weights, ")
    assert " at 70 x 90, 12 classes, " in about
    assert "times faster" in times
    end = lines.index("")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:end]]
    assert [row[0] for row in rows] == ["plain", "float32", "bfloat16"][: 3 if native == "bfloat16" else 2]
    assert float(rows[1][7]) < 1e-4
    assert float(rows[1][8].strip("%")) > 99
    here, paper = lines[-2:]
    assert here.startswith("| here | ")
    assert paper == "| paper, table 5 | 162.1 | 640.4 |"


def test_the_plain_implementation_is_the_same_function(small):
    model, pixels = mrovseg_models.build(), mrovseg_models.pixels(48, 80, 1)
    stock = load_clip_weights(build_empty_clip(ARCHITECTURE), mrovseg_models.clip_state(), "tiny")
    with torch.inference_mode():
        masks, embeddings = PlainMROVSeg(vision_transformer(stock), model)(pixels)
        expected = model(pixels)
    torch.testing.assert_close(masks, expected.masks[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embeddings, expected.embeddings[0], atol=1e-5, rtol=1e-4)
