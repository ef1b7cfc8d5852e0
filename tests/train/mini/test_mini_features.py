import numpy as np
import pytest
import torch
from safetensors.torch import save

from tests.helpers.mini_data import KEYS, Colours, two_halves, write_described_set, write_labelled_set
from train.common import image_sets
from train.common.run_folder import RunFolder, TrainingError
from train.mini import views
from train.mini.heads import features
from train.mini.heads.features import ViewFeatures


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "features", {})


@pytest.fixture
def sets(tmp_path):
    """Two photos with three classes, of which the second photo shows a speck and background; and described ones."""
    speck = np.full((72, 96), 2, np.uint8)
    speck[0, 0] = 1  # of 6912 pixels
    write_labelled_set(
        tmp_path / "data/a_train", ["cat", "dog", "background"], {KEYS[0]: two_halves(0, 1), KEYS[1]: speck}
    )
    write_described_set(tmp_path / "data/b_train", "captions", {"x": ["a cat"], "y": ["two cats"]})
    [masks], [texts] = image_sets.find_sets(tmp_path / "data")
    return masks, texts


def test_every_taught_region_has_its_views(sets, folder):
    tower = Colours()
    found = features.encode_regions(sets[0], tower, folder)
    each = len(views.REGION_VIEWS)
    assert found.features.shape == (2, each, 1280)
    assert found.logits.shape == (2, each, 1000)
    assert found.features.dtype == found.logits.dtype == torch.float16
    assert found.photos.tolist() == [0, 0]
    assert found.classes.tolist() == [0, 1]
    assert tower.seen == 2 * each
    pixels, labels = sets[0].load(sets[0].dataset.samples[0])
    for index, region in enumerate(found.features):
        for view, feature in zip(views.REGION_VIEWS, region, strict=True):
            torch.testing.assert_close(
                feature, tower.pooled(views.region_view(pixels, labels == index, view))[0].half()
            )


def test_batches_change_nothing(sets, folder, tmp_path, monkeypatch):
    together = features.encode_photos(sets[1], Colours(), folder)
    monkeypatch.setattr(features, "_BATCH", 1)
    alone = features.encode_photos(sets[1], Colours(), RunFolder(tmp_path / "again", {}))
    assert together.features.shape == (2, len(views.PHOTO_VIEWS), 1280)
    assert together.photos.tolist() == [0, 1]
    torch.testing.assert_close(vars(together), vars(alone))


def test_what_is_there_is_not_made_again(sets, folder):
    tower = Colours()
    first, seen = features.encode_photos(sets[1], tower, folder), tower.seen
    torch.testing.assert_close(vars(features.encode_photos(sets[1], tower, folder)), vars(first), rtol=0, atol=0)
    assert tower.seen == seen > 0


def test_features_can_be_trained_on(sets, folder):
    weight = torch.ones(1280, requires_grad=True)
    for _ in ("made", "read"):
        (features.encode_photos(sets[1], Colours(), folder).features.float() @ weight).sum().backward()
    assert weight.grad.any()


def test_a_set_without_regions_is_empty(tmp_path, folder):
    write_labelled_set(
        tmp_path / "data/a_train", ["cat", "background"], {KEYS[0]: two_halves(1, 1), KEYS[1]: two_halves(255, 1)}
    )
    [masks], _ = image_sets.find_sets(tmp_path / "data")
    for _ in ("made", "read"):
        found = features.encode_regions(masks, Colours(), folder)
        assert found.features.flatten(0, 1).shape == (0, 1280)
        assert found.logits.flatten(0, 1).shape == (0, 1000)
        assert found.photos.dtype == found.classes.dtype == torch.int64
        assert len(found.select(torch.tensor([True])[found.photos]).classes) == 0


@pytest.mark.parametrize("content", [b"", b"no tensors", "half", "other"])
def test_a_damaged_file_is_told_in_one_line(sets, folder, content):
    features.encode_photos(sets[1], Colours(), folder)
    path = folder.path / "b_train.safetensors"
    if content == "other":
        content = save({"weights": torch.ones(2)})
    path.write_bytes(path.read_bytes()[:2000] if content == "half" else content)
    with pytest.raises(TrainingError, match=r"^\S+b_train\.safetensors is damaged; delete it, and it is made again\.$"):
        features.encode_photos(sets[1], Colours(), folder)
    path.unlink()
    assert len(features.encode_photos(sets[1], Colours(), folder).photos) == 2


def test_a_process_that_is_stopped_leaves_no_file(sets, folder):
    class Stopped(Colours):
        def pooled(self, pixels):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.encode_photos(sets[1], Stopped(), folder)
    assert [path.name for path in folder.path.iterdir()] == ["config.json"]


def test_some_can_be_kept():
    whole = ViewFeatures(
        torch.arange(6).view(3, 2, 1), torch.arange(6).view(3, 2, 1), torch.arange(3), torch.tensor([5, 6, 7])
    )
    part = whole.select(torch.tensor([True, False, True]))
    assert part.features[:, 0, 0].tolist() == part.logits[:, 0, 0].tolist() == [0, 4]
    assert (part.photos.tolist(), part.classes.tolist()) == ([0, 2], [5, 7])
