"""Weak labels: nouns of captions, each matched to a mask proposal that nobody labelled.

OVSeg's recipe for its mask-word pairs (Liang et al. 2023, section 3.2): take the nouns out of an image's captions, find
class-agnostic masks, and give each noun the mask that a vision-language model scores highest for it. The paper uses
CLIP for this; here the scores are the anchors' of the mini model, before its heads are trained. Only the names and
concepts of the anchors count as nouns.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.proposals.base import ProposalGenerator
from train.common.image_sets import SMALLEST_REGION, DescribedSet, open_photo
from train.mini import views
from train.mini.anchors import concept_evidence

NOUNS = tuple(sorted({name.lower() for name in (*IMAGENET_CLASSNAMES, *concept_evidence())}))
"""The nouns that are looked for in captions: ImageNet names and concepts."""

AGREEING = 2
"""Number of captions of a photo that must have a noun; what a single caption names is often not in the photo."""

LIKELIEST = 50
"""A match is kept when the noun is among this many of the likeliest nouns of the region."""

_ENDINGS = ("", "s", "es")


class NounMatcher:
    """Matches the nouns of a photo's captions to mask proposals.

    Args:
        generator: generates the mask proposals.
        image_tower: embeds the regions.
        text_tower: embeds the nouns.
    """

    def __init__(self, generator: ProposalGenerator, image_tower: ImageTower, text_tower: TextTower) -> None:
        self._generator, self._tower = generator, image_tower
        self._anchors = Anchors(image_tower.device)
        self._texts = text_tower(NOUNS)
        self._spelled = {noun + ending: row for row, noun in enumerate(NOUNS) for ending in _ENDINGS}
        self._spelled |= {
            noun: row for row, noun in enumerate(NOUNS)
        }  # a noun takes precedence over an equally spelled plural
        self._longest = max(len(noun.split()) for noun in NOUNS)

    def nouns(self, captions: Sequence[str]) -> list[int]:
        """Sorted rows of the NOUNS that occur in AGREEING captions of a photo, or in all if it has fewer."""
        counts = Counter(row for caption in captions for row in self._nouns_of(caption))
        return sorted(row for row, count in counts.items() if count >= min(AGREEING, len(captions)))

    def rarest(self, source: DescribedSet, count: int) -> DescribedSet:
        """The part of a set with the `count` photos that have the rarest nouns, so that few photos show many things."""
        nouns = [self.nouns(captions) for captions in source.texts]
        frequency = Counter(row for rows in nouns for row in rows)
        by_rarity = sorted((min(frequency[row] for row in rows), photo) for photo, rows in enumerate(nouns) if rows)
        rarest = sorted(photo for _, photo in by_rarity[:count])
        photos, texts = tuple(source.photos[i] for i in rarest), tuple(source.texts[i] for i in rarest)
        return replace(source, photos=photos, texts=texts)

    def matches(self, source: DescribedSet) -> Iterator[list[tuple[int, int, list[Tensor]]]]:
        """For each photo, its matches: the number of the photo, the row of the noun, and the views of the region.

        Args:
            source: photos with captions.

        Raises:
            DatasetError: when a photo cannot be read.
        """
        for number, (path, captions) in enumerate(zip(source.photos, source.texts, strict=True)):
            rows = self.nouns(captions)
            yield self._matched(number, open_photo(path).pixels, rows) if rows else []

    def _matched(self, number: int, pixels: np.ndarray, rows: list[int]) -> list[tuple[int, int, list[Tensor]]]:
        masks = [
            mask for mask in self._generator.propose(pixels, lambda _: None).masks() if mask.mean() >= SMALLEST_REGION
        ]
        if not masks:
            return []
        crops = torch.cat([views.region_view(pixels, mask, views.REGION_VIEWS[0]) for mask in masks])
        with torch.inference_mode():
            classes = self._tower.class_logits(self._tower.pooled(crops))
            logits = self._anchors.logits(self._anchors.weights(classes), self._texts)
        best = logits[:, rows].argmax(0).tolist()
        ranks = [int((logits[region] > logits[region, row]).sum()) for region, row in zip(best, rows, strict=True)]
        return [
            (number, row, [views.region_view(pixels, masks[region], view) for view in views.REGION_VIEWS])
            for region, row, rank in zip(best, rows, ranks, strict=True)
            if rank < LIKELIEST
        ]

    def _nouns_of(self, caption: str) -> set[int]:
        """Rows of the nouns of one caption; of nouns within one another ("polar bear", "bear") the longest."""
        words, nouns, start = re.findall(r"[a-z'-]+", caption.lower()), set(), 0
        while start < len(words):
            for length in range(self._longest, 0, -1):
                row = self._spelled.get(" ".join(words[start : start + length]))
                if row is not None:
                    nouns.add(row)
                    break
            start += length
        return nouns
