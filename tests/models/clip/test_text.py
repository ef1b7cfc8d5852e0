"""Texts encoded as the tree of their prefixes, against open_clip's encoding of each text alone."""

import copy

import open_clip
import pytest
import torch

from ovseg_demo.models.clip.optimised import optimise
from ovseg_demo.models.clip.text import _prefix_indices, encode_shared_prefixes

TEMPLATES = ("a photo of a {}.", "a photo of the {}.", "{}", "a bad photo of a {} in the rain")


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    made = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 32},
        text_cfg={"width": 64, "heads": 2, "layers": 3},
    )
    for value in made.transformer.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return made.eval()


def tokens(*words: str, templates: tuple[str, ...] = TEMPLATES) -> torch.Tensor:
    return open_clip.SimpleTokenizer()([template.format(word) for word in words for template in templates])


@torch.inference_mode()
@pytest.mark.parametrize(
    "words",
    [
        ["cat"],
        ["cat", "dog", "cat"],
        ["photo of a photo", "a", ""],  # words that begin alike; an empty word
        ["word " * 100, "cat"],  # cut after 77 tokens
        [f"word {i}" for i in range(40)],  # more than a batch
    ],
    ids=lambda words: words[0][:6],
)
def test_embeddings_are_those_of_each_text_alone(clip, words):
    texts = tokens(*words)
    expected = clip.encode_text(texts)
    assert expected.std(0).min() > 1e-3 or len(words) == 1
    torch.testing.assert_close(encode_shared_prefixes(clip, texts), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_optimised_blocks_give_the_same_embeddings(clip):
    texts = tokens("cat", "airconditioner")
    expected = clip.encode_text(texts)
    optimised = copy.deepcopy(clip)  # the other tests of this module need the clip as it is
    optimise(optimised.transformer, "float32")
    torch.testing.assert_close(encode_shared_prefixes(optimised, texts), expected, atol=1e-4, rtol=1e-4)


def test_equal_prefixes_are_encoded_once():
    texts = tokens("cat", "cat cat", templates=("a photo of a {}.",))
    indices = _prefix_indices(texts[:, :9], texts.argmax(1))
    assert indices.tolist() == [[0, 1, 2, 3, 4, 5, 6, 8, -1], [0, 1, 2, 3, 4, 5, 7, 9, 10]]
