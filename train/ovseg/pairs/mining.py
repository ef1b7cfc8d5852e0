"""Mask-word pairs: from captions and mask proposals, matched by a vision-language model, or from labels by people.

Liang et al. 2023, section 3.2: take the nouns out of an image's captions, and give each the mask proposal that CLIP
finds most like it, proposals in the sense of masks that nobody labelled. The paper compares this with masks and names
from people (table 2, case 1), whose few classes cost CLIP its open vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ovseg_demo.models.base import VisionLanguageModel
from ovseg_demo.proposals.base import MaskProposals, ProposalGenerator
from train.common.image_sets import SMALLEST_REGION, DescribedSet, LabelledSet, open_photo
from train.ovseg.pairs.nouns import NounParser
from train.ovseg.pairs.shards import Pair

_DIGITS = 3
"""Decimal places of a score; further ones depend on the machine."""


class PairSource(Protocol):
    """Photos, by number, from which pairs are collected."""

    def __len__(self) -> int: ...

    def photo(self, number: int) -> Path:
        """The path of a photo."""
        ...

    def pairs(self, number: int) -> list[Pair]:
        """The pairs of a photo; there may be none. Raises DatasetError when it cannot be read."""
        ...


class CaptionPairs:
    """Pairs from captions.

    Args:
        sets: photos with captions.
        count: how many captions of each photo are read, the first ones.
        parser: finds their nouns.
        matcher: finds the regions of these.
    """

    def __init__(self, sets: Sequence[DescribedSet], count: int, parser: NounParser, matcher: "WordMatcher") -> None:
        self._photos = [
            (f"{source.name}/{path.stem}", path, texts[:count])
            for source in sets
            for path, texts in zip(source.photos, source.texts, strict=True)
        ]
        self._parser, self._matcher = parser, matcher

    def __len__(self) -> int:
        return len(self._photos)

    def photo(self, number: int) -> Path:
        return self._photos[number][1]

    def pairs(self, number: int) -> list[Pair]:
        name, path, captions = self._photos[number]
        words = self._parser.words(captions)
        return self._matcher.pairs(name, open_photo(path).pixels, words) if words else []


class LabelPairs:
    """Pairs from labels: every class of every photo is a region, as in the released "coco_gt_171cls"."""

    def __init__(self, sets: Sequence[LabelledSet]) -> None:
        self._photos = [(source, sample) for source in sets for sample in source.dataset]

    def __len__(self) -> int:
        return len(self._photos)

    def photo(self, number: int) -> Path:
        return self._photos[number][1].image

    def pairs(self, number: int) -> list[Pair]:
        source, sample = self._photos[number]
        pixels, labels = source.load(sample)
        masks = ((index, labels == index) for index in np.unique(labels[labels >= 0]) if source.training_classes[index])
        name = f"{source.name}/{sample.key}"
        return [_cut(name, pixels, m, source.names[i], "", 1.0) for i, m in masks if m.mean() >= SMALLEST_REGION]


class WordMatcher:
    """Finds the region of each of some words.

    Args:
        maker: of mask proposals.
        vlm: compares them with the words.
    """

    def __init__(self, maker: ProposalGenerator, vlm: VisionLanguageModel) -> None:
        self._maker, self._vlm = maker, vlm
        self._known: dict[str, torch.Tensor] = {}

    def pairs(self, photo: str, pixels: np.ndarray, words: Mapping[str, str]) -> list[Pair]:
        """One pair a word, unless there are no masks; words come with their captions."""
        masks = [mask for mask in self._maker.propose(pixels, _unheard).masks() if mask.mean() >= SMALLEST_REGION]
        if not masks:
            return []
        proposals = MaskProposals.from_masks(np.stack(masks), np.ones(len(masks)))
        regions = self._vlm.embed_regions(pixels, proposals, _unheard)
        scores, best = self._vlm.logits(regions, self._texts(list(words))).max(0)
        return [
            _cut(photo, pixels, masks[index], word, caption, round(score, _DIGITS))
            for (word, caption), index, score in zip(words.items(), best.tolist(), scores.tolist(), strict=True)
        ]

    def _texts(self, words: Sequence[str]) -> torch.Tensor:
        """Text embeddings (len(words), D); a word is embedded once."""
        for word in words:
            if word not in self._known:  # alone: a batch of others would change its last digits
                self._known[word] = self._vlm.embed_texts([word])[0]
        return torch.stack([self._known[word] for word in words])


def _cut(photo: str, pixels: np.ndarray, mask: np.ndarray, word: str, caption: str, score: float) -> Pair:
    x0, y0, x1, y1 = MaskProposals.from_masks(mask[None], np.ones(1)).boxes()[0].tolist()
    place = np.s_[y0:y1, x0:x1]
    return Pair(word, caption, score, photo, (x0, y0, x1, y1), pixels[place], mask[place])


def _unheard(_: float) -> None:
    """Nobody watches the stages of one photo."""
