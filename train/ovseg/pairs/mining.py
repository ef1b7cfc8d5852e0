"""Mask-word pairs: from captions and mask proposals, matched by a vision-language model, or from annotated labels.

Liang et al. 2023, section 3.2: take the nouns out of an image's captions, and give each noun the mask proposal that
is most similar to it according to CLIP. The paper compares this with annotated masks and class names (table 2, case 1):
they have few classes, and CLIP loses its open vocabulary by training on them.
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

    def __len__(self) -> int:
        """The number of photos."""
        ...

    def photo(self, number: int) -> Path:
        """The path of the photo with a number, from 0."""
        ...

    def pairs(self, number: int) -> list[Pair]:
        """The pairs of a photo; there may be none. Raises DatasetError when the photo or its labels cannot be read."""
        ...


class CaptionPairs:
    """Pairs from captions.

    Args:
        sets: photos with captions.
        count: the number of captions of each photo that are read, the first ones.
        parser: finds the nouns of captions.
        matcher: finds the regions that nouns name.
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
    """Pairs from labels: every class of every photo is a region, as in the released "coco_gt_171cls".

    Args:
        sets: photos with masks.
    """

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
        return [_crop_pair(name, pixels, m, source.names[i], "", 1.0) for i, m in masks if m.mean() >= SMALLEST_REGION]


class WordMatcher:
    """Finds the region of a photo that is most similar to a word.

    Args:
        generator: generates mask proposals.
        vlm: compares the regions of the proposals with words.
    """

    def __init__(self, generator: ProposalGenerator, vlm: VisionLanguageModel) -> None:
        self._generator, self._vlm = generator, vlm
        self._embeddings: dict[str, torch.Tensor] = {}

    def pairs(self, photo: str, pixels: np.ndarray, words: Mapping[str, str]) -> list[Pair]:
        """A pair for each word; none if the photo has no mask proposal of sufficient size.

        Args:
            photo: "SET/KEY", the name of the photo.
            pixels: the photo, uint8 (H, W, 3), RGB.
            words: the words, each with the caption that it is from.
        """
        masks = [
            mask for mask in self._generator.propose(pixels, _ignore_progress).masks() if mask.mean() >= SMALLEST_REGION
        ]
        if not masks:
            return []
        proposals = MaskProposals.from_masks(np.stack(masks), np.ones(len(masks)))
        regions = self._vlm.embed_regions(pixels, proposals, _ignore_progress)
        scores, best = self._vlm.logits(regions, self._texts(list(words))).max(0)
        return [
            _crop_pair(photo, pixels, masks[index], word, caption, round(score, _DIGITS))
            for (word, caption), index, score in zip(words.items(), best.tolist(), scores.tolist(), strict=True)
        ]

    def _texts(self, words: Sequence[str]) -> torch.Tensor:
        """Text embeddings (len(words), D); a word is embedded once."""
        for word in words:
            if word not in self._embeddings:  # alone, for other words in the batch would change the last digits
                self._embeddings[word] = self._vlm.embed_texts([word])[0]
        return torch.stack([self._embeddings[word] for word in words])


def _crop_pair(photo: str, pixels: np.ndarray, mask: np.ndarray, word: str, caption: str, score: float) -> Pair:
    x0, y0, x1, y1 = MaskProposals.from_masks(mask[None], np.ones(1)).boxes()[0].tolist()
    box = np.s_[y0:y1, x0:x1]
    return Pair(word, caption, score, photo, (x0, y0, x1, y1), pixels[box], mask[box])


def _ignore_progress(_: float) -> None:
    """The progress within one photo is not shown."""
