"""From a file to a method that runs, with a tiny CLIP in place of the published ones."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.registry import get
from ovseg_demo.methods.sed import loading
from ovseg_demo.methods.sed.checkpoint import ReleasedModel, join_checkpoint
from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.options import SEDOptions
from ovseg_demo.models.clip import convnext
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress
from ovseg_demo.weights import catalogue
from tests.helpers import sed_models
from tests.helpers.building import built

WEIGHTS = "sed-own"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A released file, tiny, where the catalogue expects "sed-own"."""
    import open_clip

    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    monkeypatch.setattr(loading, "ARCHITECTURES", {sed_models.ARCHITECTURE: sed_models.SIZES})
    sed_models.register(tmp_path)
    clip = open_clip.create_model(sed_models.ARCHITECTURE, pretrained=None, pretrained_text=False).state_dict()
    state = join_checkpoint(ReleasedModel(clip, Decoder(sed_models.SIZES).state_dict()))
    path = catalogue.get(WEIGHTS).path
    save_file(state, path)
    return path


def segment(method, photo, **options):
    stages = Stages(Cache(10**9), SerialWorker(), ignore_progress)
    return method.segment(photo, vocabulary.parse("cat, dog|puppy, sky"), SEDOptions(**options), stages)


def test_a_file_becomes_a_method_that_runs(file, random):
    method = built(get(WEIGHTS))
    photo = image.from_array(random.integers(0, 255, (40, 60, 3), np.uint8))
    found = segment(method, photo)
    assert found.size == (40, 60)
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    assert found.evidence[0].maps.shape == (3, 24, 24)
    kept = segment(method, photo, rejection=(1, 1, 1), keep_aspect=True)
    assert kept.evidence[0].maps.shape == (3, 20, 29)
    assert kept.notes


def test_words_are_kept_under_the_name_of_the_weights(file, monkeypatch):
    named = []

    class Spy(convnext.HierarchicalClip):
        def __init__(self, architecture, state, name, *rest, **settings):
            named.append(name)
            super().__init__(architecture, state, name, *rest, **settings)

    monkeypatch.setattr(convnext, "HierarchicalClip", Spy)
    loading.load_sed(WEIGHTS, "cpu")
    assert named == [f"{WEIGHTS} {catalogue.sha256_of(file)}"]


def test_a_file_of_something_else_is_told(file):
    save_file({"sem_seg_head.predictor.transformer.conv1.bias": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=r"sed-own\.safetensors holds no decoder of SED for tiny_clip_convnext"):
        loading.load_sed(WEIGHTS, "cpu")
