"""What methods share: from a vocabulary to text embeddings, from words to classes, and from places to classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.image import Photo
from ovseg_demo.stages import Stages
from ovseg_demo.vlm.base import PlaceReader, TextEncoder
from ovseg_demo.vocabulary import Vocabulary


@dataclass(frozen=True)
class ClassTexts:
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


def place_probabilities(reader: PlaceReader, photo: Photo, texts: ClassTexts, stages: Stages) -> Tensor:
    """Class probabilities on a coarse grid over the photo, float32 (C, h, w)."""
    features = stages.heavy(
        "Reading the photo", ("places", photo.key, reader.name), lambda _: reader.embed_photo(photo.pixels)
    )
    logits = reader.place_logits(features, texts.texts)
    return texts.of_classes(logits.movedim(0, -1)).softmax(-1).movedim(-1, 0)


def embed(vlm: TextEncoder, vocabulary: Vocabulary, stages: Stages, heavy: bool = False) -> ClassTexts:
    """The texts of a vocabulary; those of words met before come from the cache. `heavy`: see `Stages.each`."""
    owners, words = zip(*vocabulary.words(), strict=True)
    texts = stages.each(
        "Reading words",
        [("text", vlm.name, word) for word in words],
        # A row of a batch would keep the whole batch alive in the cache, hence the clones.
        lambda missing: [row.clone() for row in vlm.embed_texts([words[i] for i in missing])],
        heavy,
    )
    owner, rows = torch.tensor(owners), torch.stack(texts)
    if len(vocabulary) == 1:
        key = ("rival", vlm.name, words)
        (rival,) = stages.each("Reading rivals", [key], lambda _: [vlm.embed_rival(words)], heavy)
        owner = torch.cat([owner, torch.full((len(rival),), 1)])
        rows = torch.cat([rows, rival])
    return ClassTexts(rows, owner)
