"""The nouns of captions that the mini model can know, and which of them a photo's captions agree on."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from open_clip import IMAGENET_CLASSNAMES

from train.common.image_sets import DescribedSet
from train.mini.anchors import concept_evidence

NOUNS = tuple(sorted({name.lower() for name in (*IMAGENET_CLASSNAMES, *concept_evidence())}))
"""The nouns that are looked for in captions: ImageNet names and concepts."""

AGREEING = 2
"""Number of captions of a photo that must have a noun; what a single caption names is often not in the photo."""

_ENDINGS = ("", "s", "es")


class NounFinder:
    """Finds the NOUNS of captions, in the singular or the plural."""

    def __init__(self) -> None:
        self._spelled = {noun + ending: row for row, noun in enumerate(NOUNS) for ending in _ENDINGS}
        self._spelled |= {
            noun: row for row, noun in enumerate(NOUNS)
        }  # a noun takes precedence over an equally spelled plural
        self._longest = max(len(noun.split()) for noun in NOUNS)

    def agreed(self, captions: Sequence[str]) -> list[int]:
        """Sorted rows of the NOUNS that occur in AGREEING captions of a photo, or in all if it has fewer."""
        counts = Counter(row for caption in captions for row in self.mentioned(caption))
        return sorted(row for row, count in counts.items() if count >= min(AGREEING, len(captions)))

    def mentioned(self, caption: str) -> set[int]:
        """Rows of the NOUNS of one caption; of nouns within one another ("polar bear", "bear") the longest."""
        words, nouns, start = re.findall(r"[a-z'-]+", caption.lower()), set(), 0
        while start < len(words):
            for length in range(self._longest, 0, -1):
                row = self._spelled.get(" ".join(words[start : start + length]))
                if row is not None:
                    nouns.add(row)
                    break
            start += length
        return nouns

    def rarest(self, source: DescribedSet, count: int) -> DescribedSet:
        """The part of a set with the `count` photos that have the rarest nouns, so that few photos show many things."""
        nouns = [self.agreed(captions) for captions in source.texts]
        frequency = Counter(row for rows in nouns for row in rows)
        by_rarity = sorted((min(frequency[row] for row in rows), photo) for photo, rows in enumerate(nouns) if rows)
        rarest = sorted(photo for _, photo in by_rarity[:count])
        photos, texts = tuple(source.photos[i] for i in rarest), tuple(source.texts[i] for i in rarest)
        return replace(source, photos=photos, texts=texts)
