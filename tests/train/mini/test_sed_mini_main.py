"""The smoke run of "SED (mini)" on a made-up data folder: whole, again and interrupted; its views and halves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.mini import DECODER_SIZES, MultiScaleFeatures
from ovseg_demo.models.mini.model import DenseFeatures
from tests.helpers.mini_data import KEYS
from train.common import image_sets
from train.mini.cross_fitting import in_head_half, split_half
from train.mini.sed import __main__ as command
from train.mini.sed.multi_scale_views import labels_at_stride, mirror

pytestmark = pytest.mark.usefixtures("remembered_texts")


def run(data: Path, out: Path, *more: str) -> int:
    return command.main(["--data", str(data), "--out", str(out), "--smoke", *more])


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run("mini.sed").data


@pytest.fixture(scope="module")
def whole(finished_run) -> Path:
    """The folder of a run that nothing disturbed."""
    return finished_run("mini.sed").out


def test_a_run_leaves_weights_that_fit_the_demo(whole):
    stored, wanted = load_file(whole / command.FILE), Decoder(DECODER_SIZES).state_dict()
    assert {name: value.shape for name, value in stored.items()} == {
        name: value.shape for name, value in wanted.items()
    }
    assert (whole / command.FILE).stat().st_size < 3e6
    head, *lines = (whole / "decoder/log.csv").read_text().splitlines()
    assert head.split(",")[3:] == ["loss", "before stage 1", "after stage 1", "after stage 2", "result", "choice"]
    assert [line.split(",")[0] for line in lines] == ["2", "4", "6"]


def test_views_are_of_the_decoders_half_only(whole):
    shown = {path.name.split("-")[0] for path in (whole / "views").glob("*.safetensors")}
    assert shown == {"voc_train", "street_train"}
    count = sum(not in_head_half(key) for keys in (KEYS[:4], KEYS[:3]) for key in keys)
    assert len(list((whole / "views").glob("*.safetensors"))) == count
    config = json.loads((whole / "config.json").read_text())
    assert config["photos"] == {"street_train": 3, "voc_train": 4}  # without what is held out


def test_a_damaged_view_is_told(whole, data, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "decoder/state.pt").unlink()
    for path in (tmp_path / "views").glob("*.safetensors"):
        path.write_bytes(b"damaged")
    assert run(data, tmp_path) == 1
    assert "is damaged; delete it, and it is made again." in capsys.readouterr().err


def test_the_halves_share_no_photo_and_lack_none(data):
    found = image_sets.labelled_sets(data)
    parts = {head: {(s.name, key) for s in split_half(found, head) for key in s.keys} for head in (True, False)}
    assert not parts[True] & parts[False]
    assert parts[True] | parts[False] == {(source.name, key) for source in found for key in source.keys}
    assert all(in_head_half(key) is head for head, photos in parts.items() for _, key in photos)
    assert all(parts.values())


def test_a_view_has_the_labels_of_its_places():
    labels = np.repeat(np.int32([[3, 7]]), 48, 1).repeat(48, 0)
    middle = DenseFeatures(torch.zeros(2, 4, 1), torch.zeros(16, 32, 1), ())
    places = labels_at_stride(labels, MultiScaleFeatures(middle, middle, middle))
    assert places.shape == (16, 32)
    assert (places[:, :16] == 3).all()
    assert (places[:, 16:] == 7).all()


def test_mirroring_swaps_left_and_right_of_everything():
    def rising(*shape: int, along: int) -> torch.Tensor:
        row = torch.arange(shape[along]).view([-1 if axis == along else 1 for axis in range(len(shape))])
        return row.expand(shape)

    maps = tuple(rising(2, 3 * times, 4 * times, along=2) for times in (2, 4, 8))
    large = DenseFeatures(rising(6, 8, 5, along=1), rising(24, 32, 6, along=1), ())
    small = DenseFeatures(rising(2, 2, 5, along=1), rising(12, 16, 6, along=1), ())
    middle = DenseFeatures(rising(3, 4, 5, along=1), rising(24, 32, 6, along=1), maps)
    readings = mirror(MultiScaleFeatures(middle, large, small))
    assert readings.large.anchors[0, :, 0].tolist() == list(range(7, -1, -1))
    assert readings.small.dense[0, :, 0].tolist() == list(range(15, -1, -1))
    swapped = readings.middle
    assert swapped.anchors[0, :, 0].tolist() == [3, 2, 1, 0]
    assert swapped.dense[0, :, 0].tolist() == list(range(31, -1, -1))
    assert [level[0, 0].tolist() for level in swapped.maps] == [list(range(n - 1, -1, -1)) for n in (8, 16, 32)]
