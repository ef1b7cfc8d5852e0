"""The words of training: their wordings, the words kept from training, and words too similar to be negatives."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from ovseg_demo.models.mini.towers import TextTower
from train.common.image_sets import LabelledSet

TEMPLATES = ("{}", "a photo of a {}", "a {} in a scene", "a close-up photo of {}", "there is {} here")
"""The first template is the demo's; it is drawn more than half of the time."""

UNSEEN_VOC = frozenset(("pottedplant", "sheep", "sofa", "train", "tvmonitor"))
"""Photos that show one of these unseen classes of TagCLIP are left out of the restricted run whole."""

# COCO has four of VOC's unseen classes under other names, and two under the same names.
RESTRICTED = UNSEEN_VOC.union(
    ("potted plant", "couch", "tv", "tv monitor", "giraffe", "umbrella", "skateboard", "hot dog", "pizza", "donut"),
    ("microwave", "clock", "teddy bear", "curtain", "flower", "sand", "snow", "towel"),
)
"""Words that the restricted run uses for no mask, tag or noun of a caption: TagCLIP's unseen classes of VOC, and
fourteen classes of COCO."""

_SAME, _RELATED = 0.75, 0.55
"""Cosines of text embeddings above which two words, or a word and an ImageNet name, are too similar."""
_SYNONYMS = json.loads(Path(__file__).with_name("synonyms.json").read_text(encoding="utf-8"))


def drop_restricted(source: LabelledSet) -> LabelledSet:
    """A set without the masks and photos that measure the open vocabulary.

    The classes in RESTRICTED become no training classes; of a set with the classes of VOC, every photo that shows one
    of UNSEEN_VOC is left out.

    Args:
        source: the set.
    """
    dataset = source.dataset
    if set(source.names) >= UNSEEN_VOC:
        unseen = [source.names.index(name) for name in UNSEEN_VOC]
        kept = [sample for sample in dataset if not np.isin(dataset.load_labels(sample), unseen).any()]
        dataset = replace(dataset, samples=tuple(kept))
    trained = tuple(t and name not in RESTRICTED for t, name in zip(source.training_classes, source.names, strict=True))
    return replace(source, dataset=dataset, training_classes=trained)


class Lexicon:
    """Text embeddings of words in every wording and template, and of the 1000 ImageNet names; on the CPU.

    Args:
        words: the words; repeated ones count once.
        tower: embeds texts.
        restricted: whether the words and wordings in RESTRICTED are left out.

    Attributes:
        words: the W words, sorted.
        imagenet: unit vectors (1000, 384) of the ImageNet names.
    """

    def __init__(self, words: Iterable[str], tower: TextTower, restricted: bool) -> None:
        self.words = sorted(set(words).difference(RESTRICTED if restricted else ()))
        wordings = [[word, *self._synonyms(word, restricted)] for word in self.words]
        self._longest = max(map(len, wordings))
        texts = [template.format(text) for template in TEMPLATES for row in wordings for text in self._repeated(row)]
        self._texts = tower(texts).cpu().clone().view(len(TEMPLATES), len(self.words), self._longest, -1)
        self.imagenet = tower(IMAGENET_CLASSNAMES).cpu().clone()
        words_alone = self._texts[0, :, 0]
        self._same = words_alone @ words_alone.T > _SAME
        self._related = words_alone @ self.imagenet.T > _RELATED

    def index(self, names: Sequence[str]) -> Tensor:
        """The row of each name among `words`, int64 (len(names),); -1 for a name that is not in the lexicon."""
        rows = {word: row for row, word in enumerate(self.words)}
        return torch.tensor([rows.get(name, -1) for name in names], dtype=torch.int64)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Unit vectors (W, 384) of the words, each in a randomly drawn wording, all in one randomly drawn template."""
        plain = torch.rand((), generator=generator) < 0.5
        template = 0 if plain else int(torch.randint(len(TEMPLATES), (), generator=generator))
        wording = torch.randint(self._longest, (len(self.words),), generator=generator)
        first = torch.rand(len(self.words), generator=generator) < 0.5
        return self._texts[template, torch.arange(len(self.words)), torch.where(first, 0, wording)]

    def not_negatives(self, rows: Tensor, distractors: Tensor) -> Tensor:
        """Candidates that are too similar in meaning to the right word to be negatives: synonyms and related names.

        Args:
            rows: the right words, int64 (N,).
            distractors: indices of ImageNet names, int64 (M,).

        Returns:
            bool (N, W + M); False for the right word itself.
        """
        similar = torch.cat([self._same[rows], self._related[rows][:, distractors]], 1)
        similar[torch.arange(len(rows)), rows] = False
        return similar

    def _repeated(self, wordings: list[str]) -> list[str]:
        """The wordings of a word, repeated to the largest number of wordings that any word has."""
        return [wordings[i % len(wordings)] for i in range(self._longest)]

    @staticmethod
    def _synonyms(word: str, restricted: bool) -> list[str]:
        return [text for text in _SYNONYMS.get(word, ()) if not (restricted and text in RESTRICTED)]
