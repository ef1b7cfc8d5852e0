"""The text stage that all methods share: a vocabulary to text embeddings, and scores of words to scores of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.image import Photo
from ovseg_demo.methods import known
from ovseg_demo.methods.background_words import background_words
from ovseg_demo.models.base import Calibration, DenseModel, TextEncoder
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


@dataclass(frozen=True)
class ClassTextEmbeddings:
    """Text embeddings of every word of a vocabulary.

    Attributes:
        embeddings: float32 (K, D) of K words, or (K, P, D) from an encoder with a separate embedding for each of P
            prompts.
        class_indices: int64 (K,), the class of each word.
    """

    embeddings: Tensor
    class_indices: Tensor

    def of_classes(self, logits: Tensor) -> Tensor:
        """Logits of classes (..., C) from logits of words (..., K): a class gets the logit of its best word."""
        indices = self.class_indices.to(logits.device)
        best = logits.new_full((*logits.shape[:-1], int(indices.max()) + 1), -torch.inf)
        return best.scatter_reduce_(-1, indices.expand_as(logits), logits, "amax")

    def with_rivals(self, background: Tensor) -> "ClassTextEmbeddings":
        """The same words, and after the last class one of background words.

        Args:
            background: embeddings of R background words, (R, ...).
        """
        rivals = torch.full((len(background),), int(self.class_indices.max()) + 1)
        return ClassTextEmbeddings(
            torch.cat([self.embeddings, background]), torch.cat([self.class_indices, rivals.to(self.class_indices)])
        )


@dataclass(frozen=True)
class ClassScores:
    """What a model says of C classes at some places, which are the positions of a grid over a photo or its regions.

    Attributes:
        logits: float32 (C, ...).
        odds: log-odds that a place shows each class rather than something that was not asked for, float32 (C, ...).
    """

    logits: Tensor
    odds: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities (C, ...): the softmax over the classes, or, of a single class, of being it."""
        return self.logits.softmax(0) if len(self.logits) > 1 else self.odds.sigmoid()


def class_scores(logits: Tensor, texts: ClassTextEmbeddings, calibration: Calibration) -> ClassScores:
    """The scores of classes, from logits of words and background words.

    Args:
        logits: of the K words of `texts`, and after them of R background words, R >= 1, (K + R, ...).
        texts: the words of the classes.
        calibration: of these logits.
    """
    words = len(texts.class_indices)
    of_classes = texts.of_classes(logits[:words].movedim(0, -1)).movedim(-1, 0)
    return ClassScores(of_classes, known.log_odds(of_classes, logits[words:], calibration))


def score_densely(
    model: DenseModel, photo: Photo, vocabulary: Vocabulary, stages: Stages, stage: str = "Reading the photo"
) -> ClassScores:
    """Compare every position of a grid over a photo with the words of a vocabulary and with background words.

    Args:
        model: embeds the photo and the words; its dense features are cached.
        photo: the photo.
        vocabulary: C classes.
        stages: runs and caches the image stage and the text stage.
        stage: name of the image stage, as shown to people.
    """
    features = stages.cached(
        stage, ("dense features", photo.key, model.name), lambda _: model.embed_image(photo.pixels)
    )
    texts, background = embed_vocabulary(model, vocabulary, stages), embed_background(model, vocabulary, stages)
    logits = model.dense_logits(features, torch.cat([texts.embeddings, background]))
    return class_scores(logits, texts, model.dense_calibration)


def embed_vocabulary(
    encoder: TextEncoder, vocabulary: Vocabulary, stages: Stages, exclusive: bool = False
) -> ClassTextEmbeddings:
    """Text embeddings of a vocabulary; embeddings of words that were embedded before come from the cache.

    Args:
        encoder: embeds the words.
        vocabulary: at least one class.
        stages: runs and caches the text stage.
        exclusive: whether the encoder is slow, so that requests should take turns; see `Stages.cached_batch`.
    """
    indices, words = zip(*vocabulary.words(), strict=True)
    return ClassTextEmbeddings(_embed("Reading words", encoder, words, stages, exclusive), torch.tensor(indices))


def embed_background(encoder: TextEncoder, vocabulary: Vocabulary, stages: Stages, exclusive: bool = False) -> Tensor:
    """Text embeddings of the R background words for a vocabulary, float32 (R, D) or (R, P, D), R >= 1.

    Args:
        encoder: embeds the words.
        vocabulary: rules out some background words, see `background_words`.
        stages: runs and caches the text stage.
        exclusive: as of `embed_vocabulary`.
    """
    words = [word for _, word in vocabulary.words()]
    return _embed("Reading background words", encoder, background_words(words), stages, exclusive)


def _embed(stage: str, encoder: TextEncoder, words: Sequence[str], stages: Stages, exclusive: bool) -> Tensor:
    rows = stages.cached_batch(
        stage,
        [("text", encoder.name, word) for word in words],
        # A row of a batch would keep the whole batch alive in the cache, hence the clones.
        lambda missing: [row.clone() for row in encoder.embed_texts([words[i] for i in missing])],
        exclusive,
    )
    return torch.stack(rows)
