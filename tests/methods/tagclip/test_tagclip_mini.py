"""The mini model as TagCLIP's encoder: what the adapter gives, photos as one window, and what a file says of itself."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ovseg_demo import image
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip.mini import MiniAdapter, MiniWindowEncoder, load_tagclip_mini
from ovseg_demo.methods.tagclip.options import TagCLIPMiniOptions
from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, TrainingInfo, read_training_info
from ovseg_demo.models.mini.model import DenseFeatures, MiniModel
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.vocabulary import parse
from tests.helpers.paths import GALLERY

ANCHORS, TEXTS = 12, 8


@pytest.fixture
def adapter() -> MiniAdapter:
    torch.manual_seed(0)
    made = MiniAdapter(ANCHORS, TEXTS, width=8).eval()
    made.anchor_projection.normal_()
    return made


def maps(height: int = 2, width: int = 3) -> tuple[torch.Tensor, ...]:
    sizes = ((ANCHORS, 1), (120, 2), (48, 4))
    return tuple(torch.randn(1, channels, times * height, times * width) for channels, times in sizes)


def test_an_untrained_adapter_says_what_the_anchors_say(adapter):
    anchors, coarse, fine = maps()
    encoded = adapter(anchors, coarse, fine)
    regression = torch.einsum("bahw,ad->bdhw", anchors, adapter.anchor_projection)
    wanted = F.normalize(F.interpolate(regression, scale_factor=2, mode="bilinear"), dim=1)
    torch.testing.assert_close(encoded.patches, wanted)
    torch.testing.assert_close(encoded.images, F.normalize(F.normalize(regression, dim=1).mean((2, 3)), dim=1))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_trained_one_heeds_every_map(adapter, changed):
    torch.nn.init.normal_(adapter.out.weight)
    given = list(maps())
    before = adapter(*given)
    torch.testing.assert_close(before.patches.norm(dim=1), torch.ones(1, 4, 6))
    given[changed] = given[changed] + torch.randn_like(given[changed])
    assert (adapter(*given).patches - before.patches).abs().max() > 1e-3


def test_a_photo_is_one_window_of_its_own_shape(adapter):
    class VLM:
        name = "mini"

        def embed_pixels(self, pixels):
            anchors, coarse, fine = (each[0] for each in maps())
            levels = tuple(each.half() for each in (coarse, fine, torch.zeros(24, 16, 24)))
            return DenseFeatures(anchors.movedim(0, -1), torch.zeros(16, 24, TEXTS), levels)

    read = MiniWindowEncoder(VLM(), adapter).embed_image(np.zeros((64, 96, 3), np.uint8), lambda _: None)
    assert (read.window_size, read.origins) == ((64, 96), ((0, 0),))
    assert read.embeddings.patches.shape == (1, TEXTS, 4, 6)
    assert read.embeddings.images.shape == (1, TEXTS)


def test_a_file_says_what_it_was_taught(tmp_path):
    told = TrainingInfo(("cat", "dog"), "photo", seen_penalty=True)
    save_file({"a": torch.zeros(1)}, tmp_path / "told.safetensors", {METADATA_KEY: told.to_json()})
    save_file({"a": torch.zeros(1)}, tmp_path / "untold.safetensors")
    assert read_training_info(tmp_path / "told.safetensors") == told
    with pytest.raises(CheckpointError, match=r"untold.safetensors does not say how it was trained"):
        read_training_info(tmp_path / "untold.safetensors")


def test_the_bundled_model_finds_riders_on_a_beach():
    reading = load_tagclip_mini(MiniModel(), "cpu")
    asked = parse("horse, person, sand")
    photo = image.load(GALLERY / "riders_on_beach.jpg")
    assert reading.seen(asked, None) == (True, True, False)
    result = reading.segment(photo, asked, TagCLIPMiniOptions(), Stages(Cache(10**9), SerialWorker(), ignore_progress))
    shares = {found.name: found.share for found in result.summary()}
    assert 0.03 < shares["horse"] < 0.15
    assert 0.01 < shares["person"] < 0.15
    (trusty,) = (each for each in result.evidence if each.classes is None)
    new, labels = trusty.maps[0], result.labels
    rows, columns = (np.arange(n) * m // n for n, m in zip(new.shape, labels.shape, strict=True))
    on_sand = labels[np.ix_(rows, columns)] == 2
    assert new[on_sand].mean() > 0.6 > 0.4 > new[~on_sand].mean()
