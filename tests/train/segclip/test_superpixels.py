"""Superpixels are scikit-image's, computed once a photo, and counted patch by patch as by the released code."""

import numpy as np
import pytest
import torch
from skimage.segmentation import felzenszwalb
from torch.nn import functional as F

from train.common.run_folder import TrainingError
from train.segclip import superpixels
from train.segclip.superpixels import SuperpixelCache, patch_superpixels

PHOTO = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_photo_is_computed_once(tmp_path, monkeypatch):
    found = SuperpixelCache(tmp_path / "kept")(PHOTO)
    np.testing.assert_array_equal(found, felzenszwalb(PHOTO, scale=224, sigma=0.9, min_size=224))
    assert (found.dtype, found.shape) == (np.uint16, (48, 64))
    assert len(np.unique(found)) > 3
    monkeypatch.setattr(superpixels, "felzenszwalb", lambda photo, *settings: np.zeros(photo.shape[:2]))
    again = SuperpixelCache(tmp_path / "kept")
    np.testing.assert_array_equal(again(PHOTO), found)
    assert not again(PHOTO[:, ::-1]).any(), "another photo is computed"
    assert not again(PHOTO.reshape(64, 48, 3)).any(), "so is one of another shape"
    assert len(files(tmp_path)) == 3


def test_a_damaged_file_is_made_again(tmp_path):
    cache = SuperpixelCache(tmp_path)
    found = cache(PHOTO)
    [path] = files(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cache(PHOTO), found)
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"^Cannot keep superpixels in .*file: Not a directory\.$"):
        SuperpixelCache(tmp_path / "file")(PHOTO)


@pytest.mark.parametrize("size", [(31, 57), (48, 48), (100, 20)])
def test_a_patch_has_the_mean_label_of_its_pixels(size):
    labels = np.random.default_rng(1).integers(0, 300, (5, 4)).repeat(20, 0).repeat(15, 1)[: size[0], : size[1]]
    enlarged = F.interpolate(torch.from_numpy(labels)[None, None].float(), (48, 48), mode="nearest")
    means = F.avg_pool2d(enlarged.double(), 8)[0, 0].floor().long()
    np.testing.assert_array_equal(patch_superpixels(labels.astype(np.uint16), 48, 8), means.flatten().numpy())
