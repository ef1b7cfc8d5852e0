"""Weak labels: nouns of captions, each matched to a mask proposal that nobody labelled.

OVSeg's recipe for its mask-word pairs (Liang et al. 2023, section 3.2): take the nouns out of an image's captions, find
class-agnostic masks, and give each noun the mask that an untrained vision-language model likes best for it. There that
is CLIP, here it is the anchors. Nouns are looked up in a list, the names and concepts of the anchors.
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

AGREEING = 2
"""Number of captions of a photo that must have the noun: a noun of one caption alone is often not in the photo."""

LIKELIEST = 50
"""A match is kept when the noun is among this many of the likeliest nouns of the region."""

_ENDINGS = ("", "s", "es")


class NounMatcher:
    """Matches the nouns of a photo's captions to mask proposals.

    Args:
        maker: generates the mask proposals.
        image_tower: embeds the regions.
        text_tower: embeds the nouns.
    """

    def __init__(self, maker: ProposalGenerator, image_tower: ImageTower, text_tower: TextTower) -> None:
        self._maker, self._tower = maker, image_tower
        self._anchors = Anchors(image_tower.device)
        self._texts = text_tower(NOUNS)
        self._spelled = {noun + ending: row for row, noun in enumerate(NOUNS) for ending in _ENDINGS}
        self._spelled |= {noun: row for row, noun in enumerate(NOUNS)}  # a noun's own spelling goes before plurals
        self._longest = max(len(noun.split()) for noun in NOUNS)

    def nouns(self, captions: Sequence[str]) -> list[int]:
        """Rows of the nouns that several captions agree on, sorted."""
        counts = Counter(row for caption in captions for row in self._found(caption))
        return sorted(row for row, count in counts.items() if count >= min(AGREEING, len(captions)))

    def rarest(self, source: DescribedSet, count: int) -> DescribedSet:
        """The `count` photos with the rarest nouns: a few hundred that show most things, instead of dogs and men."""
        found = [self.nouns(captions) for captions in source.texts]
        often = Counter(row for rows in found for row in rows)
        order = sorted((min(often[row] for row in rows), number) for number, rows in enumerate(found) if rows)
        chosen = sorted(number for _, number in order[:count])
        photos, texts = tuple(source.photos[i] for i in chosen), tuple(source.texts[i] for i in chosen)
        return replace(source, photos=photos, texts=texts)

    def matches(self, source: DescribedSet) -> Iterator[list[tuple[int, int, list[Tensor]]]]:
        """For each photo, (its number, the noun, the views of the region) of every match."""
        for number, (path, captions) in enumerate(zip(source.photos, source.texts, strict=True)):
            rows = self.nouns(captions)
            yield self._matched(number, open_photo(path).pixels, rows) if rows else []

    def _matched(self, number: int, pixels: np.ndarray, rows: list[int]) -> list[tuple[int, int, list[Tensor]]]:
        masks = [mask for mask in self._maker.propose(pixels, lambda _: None).masks() if mask.mean() >= SMALLEST_REGION]
        if not masks:
            return []
        crops = torch.cat([views.region_view(pixels, mask, views.REGION_VIEWS[0]) for mask in masks])
        with torch.inference_mode():
            classes = self._tower.classes(self._tower.pooled(crops))
            logits = self._anchors.logits(self._anchors.weights(classes), self._texts)
        best = logits[:, rows].argmax(0).tolist()
        rank = [int((logits[region] > logits[region, row]).sum()) for region, row in zip(best, rows, strict=True)]
        return [
            (number, row, [views.region_view(pixels, masks[region], view) for view in views.REGION_VIEWS])
            for region, row, place in zip(best, rows, rank, strict=True)
            if place < LIKELIEST
        ]

    def _found(self, caption: str) -> set[int]:
        """Rows of the nouns of one caption; of nouns within one another ("polar bear", "bear") the longest."""
        words, found, start = re.findall(r"[a-z'-]+", caption.lower()), set(), 0
        while start < len(words):
            for length in range(self._longest, 0, -1):
                row = self._spelled.get(" ".join(words[start : start + length]))
                if row is not None:
                    found.add(row)
                    break
            start += length
        return found
