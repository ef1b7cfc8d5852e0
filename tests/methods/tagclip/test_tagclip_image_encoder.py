"""The fast reader against the plain modules, in float32."""

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip.checkpoint import split_checkpoint
from ovseg_demo.methods.tagclip.image_encoder import ClipWindowEncoder, build_prompted_clip
from ovseg_demo.methods.tagclip.training_info import TEMPLATES
from ovseg_demo.models.clip import text
from ovseg_demo.models.clip.text import encode_texts
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tests.helpers import tagclip_models


@pytest.fixture(scope="module")
def state():
    return split_checkpoint(tagclip_models.published("tagclip")).clip


@pytest.fixture
def reader(state, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    return ClipWindowEncoder(state, "tiny", "scenes", source="tiny", precision="float32")


def test_windows_are_read_as_by_the_plain_tower(state, reader, random):
    side = tagclip_models.SIDE
    pixels = random.integers(0, 255, (side, 2 * side, 3), np.uint8)
    read = reader.embed_image(pixels, lambda _: None)
    assert read.origins == ((0, 0), (0, 27), (0, 32))
    tower = build_prompted_clip(state, "tiny").visual
    for index, (_, left) in enumerate(read.origins):
        cut = torch.from_numpy(pixels[:, left : left + side]).permute(2, 0, 1)[None]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.inference_mode():
            expected = tower((cut - mean) / std)
        torch.testing.assert_close(read.embeddings.patches[index], expected.patches[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(read.embeddings.images[index], expected.images[0], rtol=0, atol=1e-5)


def test_progress_ends_at_one(reader, random):
    told = []
    reader.embed_image(random.integers(0, 255, (32, 90, 3), np.uint8), told.append)
    assert told == sorted(told)
    assert told[-1] == 1


def test_words_are_read_in_all_templates(state, reader):
    clip = build_prompted_clip(state, "tiny")
    texts = [template.format("cat") for template in TEMPLATES["scenes"]]
    with torch.inference_mode():
        each = F.normalize(encode_texts(clip, open_clip.tokenize(texts)), dim=-1)
    expected = F.normalize(each.mean(0), dim=0)
    torch.testing.assert_close(reader.embed_texts(["dog", "cat"])[1], expected, rtol=0, atol=1e-5)


def test_words_are_kept_on_disk(state, reader, monkeypatch):
    known = reader.embed_texts(["cat", "dog"])
    again = ClipWindowEncoder(state, "tiny", "scenes", source="tiny", precision="float32")
    monkeypatch.setattr(text, "embed_words", None)
    torch.testing.assert_close(again.embed_texts(["dog", "cat"]), known.flip(0), rtol=0, atol=0)


def test_the_precision_of_the_processor_changes_little(state, reader, random):
    pixels = random.integers(0, 255, (40, 40, 3), np.uint8)
    coarse = ClipWindowEncoder(state, "tiny", "scenes", source="tiny", precision="bfloat16").embed_image(pixels, print)
    exact = reader.embed_image(pixels, print)
    assert F.cosine_similarity(coarse.embeddings.patches, exact.embeddings.patches).min() > 0.99
    assert not torch.equal(coarse.embeddings.patches, exact.embeddings.patches)


@pytest.mark.parametrize("gone", ["visual.conv1.weight", "token_embedding.weight", "visual.prompt_embeddings"])
def test_what_is_missing_is_named(state, gone):
    with pytest.raises(CheckpointError, match=gone.replace(".", r"\.")):
        build_prompted_clip({name: value for name, value in state.items() if name != gone}, "file")


def test_missing_and_extra_tensors_are_named(state):
    broken = {name: value for name, value in state.items() if name != "visual.ln_post.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing \(visual\.ln_post\.bias\); 1 unexpected \(strange\)"):
        build_prompted_clip({**broken, "strange": torch.zeros(1)}, "file")
