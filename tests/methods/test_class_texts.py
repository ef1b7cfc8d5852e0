"""The text stage over a stand-in encoder."""

import pytest
import torch

from ovseg_demo import vocabulary
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress


class Lengths:
    """Embeds a word as its length."""

    name = "lengths"

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed_texts(self, texts):
        self.read += texts
        return torch.tensor([[len(text), 1.0] for text in texts])

    def embed_background_prompts(self, texts):
        self.read.append(f"not {'|'.join(texts)}")
        return torch.tensor([[-1.0, 0], [-2, 0]])


@pytest.fixture
def encoder() -> Lengths:
    return Lengths()


def embed(encoder: Lengths, text: str, cache: Cache | None = None) -> ClassTextEmbeddings:
    return class_texts.embed_vocabulary(
        encoder, vocabulary.parse(text), Stages(cache or Cache(10**6), SerialWorker(), ignore_progress)
    )


def test_synonyms_belong_to_their_class(encoder):
    found = embed(encoder, "cat, sofa|couch, window")
    assert found.embeddings.tolist() == [[3, 1], [4, 1], [5, 1], [6, 1]]
    assert found.class_indices.tolist() == [0, 1, 1, 2]


def test_one_class_competes_with_background_prompts(encoder):
    found = embed(encoder, "sofa|couch")
    assert found.embeddings[:, 0].tolist() == [4, 5, -1, -2]
    assert found.class_indices.tolist() == [0, 0, 1, 1]


def test_words_are_embedded_once(encoder):
    cache = Cache(10**6)
    embed(encoder, "cat, sofa", cache)
    again = embed(encoder, "bird, sofa|cat", cache)
    assert again.embeddings[:, 0].tolist() == [4, 4, 3]
    embed(encoder, "cat", cache), embed(encoder, "cat", cache)
    assert encoder.read == ["cat", "sofa", "bird", "not cat"]


def test_a_cached_row_keeps_no_batch_alive(encoder):
    cache = Cache(10**6)
    embed(encoder, ", ".join(f"word {i}" for i in range(50)), cache)
    row = cache.get(("text", "lengths", "word 7"))
    assert row.untyped_storage().nbytes() == row.nbytes


@pytest.mark.parametrize("shape", [(), (2,), (0,), (3, 2)])
def test_a_class_scores_as_its_best_word(shape):
    texts = ClassTextEmbeddings(torch.zeros(5, 2), torch.tensor([0, 1, 1, 2, 1]))
    logits = torch.randn(*shape, 5, generator=torch.Generator().manual_seed(0)) - 10
    found = texts.of_classes(logits)
    expected = torch.stack([logits[..., 0], logits[..., [1, 2, 4]].amax(-1), logits[..., 3]], -1)
    torch.testing.assert_close(found, expected)
