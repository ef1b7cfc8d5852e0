"""What methods share: from a vocabulary to text embeddings, from words to classes, and from places to classes."""

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

    Attributes:
        texts: float32 (K, D), or (K, P, D) of a reader that reads words in P prompts and keeps these apart.
        owners: int64 (K,), the class of each word. A vocabulary of one class has a second, its rival "others", without
            which its softmax would always be 1.
    """

    texts: Tensor
    owners: Tensor

    def of_classes(self, logits: Tensor) -> Tensor:
        """Logits of classes (..., C) from those of words (..., K): a class scores as its best word."""
        owners = self.owners.to(logits.device)
        best = logits.new_full((*logits.shape[:-1], int(owners.max()) + 1), -torch.inf)
        return best.scatter_reduce_(-1, owners.expand_as(logits), logits, "amax")


def dense_probabilities(reader: DenseModel, photo: Photo, texts: ClassTextEmbeddings, stages: Stages) -> Tensor:
    """Class probabilities on a coarse grid over the photo, float32 (C, h, w)."""
    features = stages.cached(
        "Reading the photo", ("places", photo.key, reader.name), lambda _: reader.embed_image(photo.pixels)
    )
    logits = reader.dense_logits(features, texts.texts)
    return texts.of_classes(logits.movedim(0, -1)).softmax(-1).movedim(-1, 0)


def embed_vocabulary(
    vlm: TextEncoder, vocabulary: Vocabulary, stages: Stages, exclusive: bool = False
) -> ClassTextEmbeddings:
    """Text embeddings of a vocabulary; those of words met before come from the cache.

    Args:
        exclusive: as of `Stages.cached_batch`.
    """
    owners, words = zip(*vocabulary.words(), strict=True)
    texts = stages.cached_batch(
        "Reading words",
        [("text", vlm.name, word) for word in words],
        # A row of a batch would keep the whole batch alive in the cache, hence the clones.
        lambda missing: [row.clone() for row in vlm.embed_texts([words[i] for i in missing])],
        exclusive,
    )
    owner, rows = torch.tensor(owners), torch.stack(texts)
    if len(vocabulary) == 1:
        key = ("rival", vlm.name, words)
        (rival,) = stages.cached_batch(
            "Reading rivals", [key], lambda _: [vlm.embed_background_prompts(words)], exclusive
        )
        owner = torch.cat([owner, torch.full((len(rival),), 1)])
        rows = torch.cat([rows, rival])
    return ClassTextEmbeddings(rows, owner)
