"""The text stage over a stand-in encoder."""

import pytest
import torch

from ovseg_demo import vocabulary
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.background_words import background_words
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.runtime.stages import Cache, SerialWorker, Stages, ignore_progress


class Lengths:
    """Embeds a word as its length."""

    name = "lengths"

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed_texts(self, texts):
        self.read += texts
        return torch.tensor([[len(text), 1.0] for text in texts])


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


def test_background_words_are_embedded_once_less_those_that_are_asked_for(encoder):
    cache = Cache(10**6)

    def embedded(text: str) -> torch.Tensor:
        stages = Stages(cache, SerialWorker(), ignore_progress)
        return class_texts.embed_background(encoder, vocabulary.parse(text), stages)

    words = background_words(["sofa"])
    assert embedded("sofa").tolist() == [[len(word), 1] for word in words]
    assert len(embedded("couch, sky")) == len(background_words(["couch", "sky"])) < len(words)
    assert encoder.read == [*words]


def test_background_words_can_be_a_class_of_their_own(encoder):
    found = embed(encoder, "cat, sofa|couch").with_rivals(torch.tensor([[-1.0, 0], [-2, 0]]))
    assert found.embeddings[:, 0].tolist() == [3, 4, 5, -1, -2]
    assert found.class_indices.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_logits_of_words_and_background_words_become_scores_of_classes(shape):
    texts = ClassTextEmbeddings(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    cat, sofa, couch, sky, wall = logits = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    found = class_texts.class_scores(logits, texts, UNCALIBRATED)
    best = torch.stack([cat, torch.maximum(sofa, couch)])
    torch.testing.assert_close(found.logits, best)
    torch.testing.assert_close(found.odds, best - torch.maximum(sky, wall))
    torch.testing.assert_close(found.probabilities, best.softmax(0))


def test_a_single_class_has_the_probability_of_being_it():
    texts = ClassTextEmbeddings(torch.zeros(1, 2), torch.tensor([0]))
    found = class_texts.class_scores(torch.tensor([[2.0, 0], [1, 0], [1, 0]]), texts, UNCALIBRATED)
    expected = torch.tensor([[2.0, 0], [1, 0]]).softmax(0)[:1]  # that of a softmax with the nearest background word
    torch.testing.assert_close(found.probabilities, expected)


def test_words_are_embedded_once(encoder):
    cache = Cache(10**6)
    embed(encoder, "cat, sofa", cache)
    again = embed(encoder, "bird, sofa|cat", cache)
    assert again.embeddings[:, 0].tolist() == [4, 4, 3]
    assert encoder.read == ["cat", "sofa", "bird"]


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
