from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_demo.models.mini.anchors import Anchors
from tests.helpers.mini_data import CHANNELS, KEYS, Colours, two_halves, write_labelled_set
from train.common import image_sets
from train.common.run_folder import TrainingError
from train.mini.heads.windows import WindowFeatures, WindowSizes

ANCHORS = Anchors("cpu")
SIZES = WindowSizes(side=64, longest=(80, 120), of_set=6, of_photo=(2, 3))


class Counting(Colours):
    """Counts the windows that are encoded."""

    def pyramid(self, pixels):
        self.seen += len(pixels)
        return super().pyramid(pixels)


@pytest.fixture
def labelled(tmp_path):
    masks = {key: two_halves(0, 255, (60, 80)) for key in KEYS[:2]}
    write_labelled_set(tmp_path / "street_train", ["road", "sky"], masks)
    write_labelled_set(tmp_path / "wall_train", ["wall"], {key: two_halves(0, 0, (60, 80)) for key in KEYS[:5]})
    return image_sets.labelled_sets(tmp_path)


@pytest.mark.parametrize(("photos", "count"), [(1, 8), (100, 8), (200, 4), (399, 2), (5000, 2)])
def test_a_small_set_has_more_windows_of_each_photo(photos, count):
    assert WindowSizes().count(photos) == count


def test_a_drawn_window_has_maps_and_labels_of_one_size_and_is_mirrored_at_times(labelled, tmp_path):
    windows, (street, _) = WindowFeatures(labelled, Colours(), ANCHORS, SIZES, tmp_path / "windows"), labelled
    mirrored = set()
    for seed in range(12):
        maps, labels = windows.draw(street, street.dataset.samples[0], torch.Generator().manual_seed(seed))
        assert [level.shape for level in maps.values()] == [
            (1, channels, 64 // stride, 64 // stride)
            for stride, channels in zip((4, 8, 16, 32, 32), (*CHANNELS, 1275), strict=True)
        ]
        assert labels.shape == (16, 16)
        assert set(labels.unique().tolist()) <= {0, -1}
        mirrored.add(bool(labels[0, 0] == -1))
    assert mirrored == {True, False}


def test_the_maps_of_a_mirrored_window_lie_on_its_labels(tmp_path):
    write_labelled_set(tmp_path / "street_train", ["road", "sky"], {KEYS[0]: two_halves(0, 1, (60, 80))})
    path = tmp_path / f"street_train/images/{KEYS[0]}.jpg"
    colours = np.where(two_halves(0, 1, (60, 80))[..., None], np.uint8([0, 0, 255]), np.uint8([255, 0, 0]))
    Image.fromarray(colours.astype(np.uint8)).save(path, quality=95)
    (street,) = image_sets.labelled_sets(tmp_path)
    windows = WindowFeatures([street], Colours(), ANCHORS, SIZES, tmp_path / "windows")
    for seed in range(8):
        maps, labels = windows.draw(street, street.dataset.samples[0], torch.Generator().manual_seed(seed))
        is_blue = maps["stride 4"][0, 2] > maps["stride 4"][0, 0]
        assert (is_blue == (labels == 1))[labels >= 0].float().mean() > 0.9


def test_windows_are_encoded_once_and_a_part_of_the_photos_finds_them(labelled, tmp_path):
    tower = Counting()
    full = WindowFeatures(labelled, tower, ANCHORS, SIZES, tmp_path / "windows")
    assert tower.seen == 2 * 3 + 5 * 2
    again = WindowFeatures(labelled, tower, ANCHORS, SIZES, tmp_path / "windows")
    assert tower.seen == 2 * 3 + 5 * 2
    wall = labelled[1]
    part = replace(wall, dataset=replace(wall.dataset, samples=wall.dataset.samples[3:4]))
    maps = [w.draw(part, part.dataset.samples[0], torch.Generator().manual_seed(4))[0] for w in (full, again)]
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in maps), strict=True))


def test_a_missing_window_is_the_same_when_it_is_made_again(labelled, tmp_path):
    WindowFeatures(labelled, Colours(), ANCHORS, SIZES, tmp_path / "windows")
    path = next((tmp_path / "windows").glob("wall_train-*.safetensors"))
    before = path.read_bytes()
    path.unlink()
    WindowFeatures(labelled, Colours(), ANCHORS, SIZES, tmp_path / "windows")
    assert path.read_bytes() == before


def test_windows_of_other_sizes_are_refused(labelled, tmp_path):
    WindowFeatures(labelled, Colours(), ANCHORS, SIZES, tmp_path / "windows")
    with pytest.raises(TrainingError, match=r"other settings \(side was 64, now 96\)"):
        WindowFeatures(labelled, Colours(), ANCHORS, replace(SIZES, side=96), tmp_path / "windows")
