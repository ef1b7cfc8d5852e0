"""The text stage that all methods share: a vocabulary to text embeddings, and scores of words to scores of classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.image import Photo
from ovseg_demo.models.base import DenseModel, TextEncoder
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


@dataclass(frozen=True)
class ClassTextEmbeddings:
    """Text embeddings of every word of a vocabulary.

    A vocabulary of one class has a second class, made of background prompts, without which its softmax would always
    be 1.

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


def dense_probabilities(model: DenseModel, photo: Photo, texts: ClassTextEmbeddings, stages: Stages) -> Tensor:
    """Class probabilities on a coarse grid over a photo.

    Args:
        model: embeds the photo; its dense features are cached.
        photo: the photo.
        texts: K words of C classes, embedded by the same model.
        stages: runs and caches the image stage.

    Returns:
        float32 (C, h, w), which sum to 1 over the classes.
    """
    features = stages.cached(
        "Reading the photo", ("dense features", photo.key, model.name), lambda _: model.embed_image(photo.pixels)
    )
    logits = model.dense_logits(features, texts.embeddings)
    return texts.of_classes(logits.movedim(0, -1)).softmax(-1).movedim(-1, 0)


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
    rows = stages.cached_batch(
        "Reading words",
        [("text", encoder.name, word) for word in words],
        # A row of a batch would keep the whole batch alive in the cache, hence the clones.
        lambda missing: [row.clone() for row in encoder.embed_texts([words[i] for i in missing])],
        exclusive,
    )
    class_indices, embeddings = torch.tensor(indices), torch.stack(rows)
    if len(vocabulary) == 1:
        (background,) = stages.cached_batch(
            "Reading background prompts",
            [("background prompts", encoder.name, words)],
            lambda _: [encoder.embed_background_prompts(words)],
            exclusive,
        )
        class_indices = torch.cat([class_indices, torch.full((len(background),), 1)])
        embeddings = torch.cat([embeddings, background])
    return ClassTextEmbeddings(embeddings, class_indices)
