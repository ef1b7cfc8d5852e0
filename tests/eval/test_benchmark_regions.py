"""The benchmark of reading regions, on a model of a few layers; times are never asserted."""

import json

import numpy as np
import open_clip
import pytest
import torch

from eval.benchmark import regions
from eval.benchmark.__main__ import main
from eval.benchmark.regions import RELEASED, RegionMeasurement
from ovseg_demo.ui import gallery

CONFIG = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A small architecture, and measurements made in this process."""
    path = tmp_path / "regions-test-quickgelu.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    monkeypatch.setattr(regions, "ARCHITECTURES", (path.stem,))
    monkeypatch.setattr(regions, "alone", lambda work, *arguments: work(*arguments))
    return path.stem


@pytest.mark.parametrize("typed", [[], ["--prompts"]])
@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_the_command_compares_ours_with_the_release(here, typed, native, monkeypatch, capsys):
    monkeypatch.setattr(regions, "native_precision", lambda _: native)
    assert main(["regions", "--regions", "7", "--repeats", "2", *typed]) == 0
    about, _, *lines = capsys.readouterr().out.splitlines()
    assert about.startswith(f"{here}{' with mask prompts' if typed else ''}, random weights, 7 regions, medians of 2")
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert [row[0] for row in rows] == [RELEASED, "float32", "bfloat16"][: 3 if native == "bfloat16" else 2]
    assert all(float(row[3]) > 100 for row in rows)
    assert [row[4] for row in rows[:2]] == ["1.000000"] * 2
    assert all(float(row[4]) > 0.999 for row in rows)


def test_prompts_are_among_the_weights_only_when_asked_for(here, tmp_path):
    photo, found = gallery.examples()[0].path, {}
    for prompts in (False, True):
        regions.write_weights(here, prompts, tmp_path / "weights.safetensors")
        found[prompts] = regions.run_implementation(
            "float32", here, tmp_path / "weights.safetensors", photo, 5, 1
        ).embeddings
    assert not np.allclose(found[False], found[True], atol=1e-3)


def test_runs_are_compared():
    base = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]] + 0.01 * np.arange(12, dtype=np.float32).reshape(4, 3)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    other = base[[0, 1, 2, 0]]
    lines = regions.comparison_table(
        {RELEASED: RegionMeasurement([4.0, 5, 9], 100.4, base), "ours": RegionMeasurement([2.0], 50.0, other)}
    ).splitlines()
    assert lines[2] == "| as released | 5.0 | 1.0 | 100 | 1.000000 | 100% |"
    name, seconds, faster, memory, cosine, same = lines[3].strip("| ").split(" | ")
    assert (name, seconds, faster, memory) == ("ours", "2.0", "2.5", "50")
    assert float(cosine) == pytest.approx((base[3] * base[0]).sum(), abs=1e-5)
    assert same != "100%"


def test_ellipses_lie_in_the_image_and_are_always_the_same():
    first, again = (regions.ellipses(40, (60, 80)) for _ in range(2))
    assert first.size == (60, 80)
    assert len(first) == 40
    assert np.array_equal(first.packed, again.packed)
    areas = first.masks().sum((1, 2))
    assert areas.min() > 10
    assert areas.max() > 1000


@pytest.mark.parametrize("typed", [["--regions", "101"], ["--regions", "1"], ["--repeats", "0"], ["--clip", "none"]])
def test_unusable_arguments_are_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["regions", *typed])
    assert ended.value.code == 2


def test_weights_leave_the_random_state_alone(here, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    regions.write_weights(here, False, tmp_path / "weights.safetensors")
    assert torch.equal(torch.rand(2), expected)
