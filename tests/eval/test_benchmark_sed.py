"""The benchmark of SED, on a model of a few layers; times are never asserted."""

import json
from functools import partial

import numpy as np
import open_clip
import pytest
import torch

from eval.benchmark import paired_timing, random_weights, sed
from eval.benchmark.__main__ import main
from eval.benchmark.paired_timing import RELEASED
from eval.benchmark.sed import Implementation, SEDMeasurement
from ovseg_demo.errors import UserError
from ovseg_demo.methods.sed import cost_maps
from ovseg_demo.methods.sed.decoder import DecoderSizes
from ovseg_demo.methods.sed.loading import ARCHITECTURES

MODEL = "sed-test"
SIZES = DecoderSizes(skips=(48, 32, 24), widths=(32, 16, 16, 16), guides=(4, 2, 2))
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A small model, and measurements made in this process."""
    path = tmp_path / "sed-benchmark-test.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    monkeypatch.setitem(ARCHITECTURES, path.stem, SIZES)
    monkeypatch.setitem(sed.MODELS, MODEL, path.stem)
    monkeypatch.setitem(random_weights.BUILDERS, MODEL, partial(random_weights._sed, path.stem))
    monkeypatch.setattr(cost_maps, "SIDE", 64)
    monkeypatch.setattr(sed, "alone", lambda work, *arguments: work(*arguments))
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_the_command_compares_ours_with_the_release(here, native, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paired_timing, "native_precision", lambda _: native)
    monkeypatch.setattr(sed, "REJECTION", (2, 2, 2))
    typed = ["--model", MODEL, "--classes", "30", "3", "--repeats", "2", "--out", str(tmp_path / "out")]
    assert main(["sed", *typed]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "sed.md").read_text() == printed
    assert (tmp_path / "out" / "sed.png").stat().st_size > 10_000
    about, _, _, _, *lines = printed.splitlines()
    assert about.startswith(f"{MODEL}, random weights, ")
    rows = [line.strip("| ").split(" | ") for line in lines]
    ways = [RELEASED, "float32", "bfloat16"][: 3 if native == "bfloat16" else 2]
    names = [*ways, *(f"{way}, early rejection" for way in ways)]
    assert [row[:2] for row in rows] == [[count, name] for count in ("3", "30") for name in names]
    kept = {(row[0], row[1]): row[7] for row in rows}
    assert kept["30", "float32"] == "30 → 30 → 30 → 30"
    assert kept["30", "float32, early rejection"] == kept["30", f"{RELEASED}, early rejection"] != "30 → 30 → 30 → 30"
    for row in rows:
        if "bfloat16" not in row[1]:
            assert float(row[8]) < 1e-5
            assert row[9] == "100.0%"
        assert float(row[6]) > 100


def test_words_are_as_like_the_photo_as_a_trained_models(here):
    common = torch.randn(640, generator=torch.Generator().manual_seed(3))
    texts = sed.random_class_texts(50, common)
    assert texts.shape == (50, 80, 640)
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(50, 80))
    cosines = texts @ (common / common.norm())
    assert cosines.mean() == pytest.approx(0.2, abs=0.02)
    assert cosines.std() == pytest.approx(0.04, abs=0.01)
    assert cosines.mean(1).std() > 2 * cosines.std(1).mean()
    assert torch.equal(texts, sed.random_class_texts(50, common))


def test_runs_are_compared():
    first, second = np.zeros((2, 3, 1, 2), np.float32)
    first[:, 0] = [[0.5, 0.2], [0.1, 0.3], [0.4, 0.1]]
    second[:2, 0] = [[0.4, 0.3], [0.6, 0.5]]  # the third class is rejected
    runs = {
        Implementation(RELEASED, False): {3: SEDMeasurement([1.0], [4.0, 5, 9], 100.4, (3, 3, 3, 3), first)},
        Implementation("ours", False): {3: SEDMeasurement([0.5], [2.0], 50.0, (3, 3, 3, 3), first + 0.01)},
        Implementation(RELEASED, True): {3: SEDMeasurement([1.0], [3.0], 90.0, (3, 2, 2, 2), second)},
        Implementation("ours", True): {3: SEDMeasurement([0.5], [1.0], 40.0, (3, 3, 2, 2), first)},
    }
    head, _, *lines = sed.comparison_table(runs).splitlines()
    assert "times faster than as published, early rejection" in head
    assert lines == [
        "| 3 | as published | 5.00 | 1.00 | 1.0 | 0.6 | 100 | 3 → 3 → 3 → 3 | 0e+00 | 100.0% |",
        "| 3 | ours | 2.00 | 0.50 | 2.5 | 1.5 | 50 | 3 → 3 → 3 → 3 | 1e-02 | 100.0% |",
        "| 3 | as published, early rejection | 3.00 | 1.00 | 1.7 | 1.0 | 90 | 3 → 2 → 2 → 2 | 0e+00 | 100.0% |",
        "| 3 | ours, early rejection | 1.00 | 0.50 | 5.0 | 3.0 | 40 | 3 → 3 → 2 → 2 | 5e-01 | 50.0% |",
    ]


def test_a_failing_contender_fails_the_command(here, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise UserError("no memory")

    monkeypatch.setattr(sed, "run_implementation", fails)
    assert main(["sed", "--model", MODEL, "--classes", "2", "--out", str(tmp_path)]) == 1
    assert "no memory" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["--classes", "1"], ["--classes"], ["--repeats", "0"], ["--model", "none"]])
def test_unusable_arguments_are_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sed", *typed])
    assert ended.value.code == 2
