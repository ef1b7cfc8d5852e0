"""Weak labels: nouns of captions, each matched to a mask proposal that nobody labelled.

OVSeg's recipe for its mask-word pairs (Liang et al. 2023, section 3.2): take the nouns out of an image's captions, find
class-agnostic masks, and give each noun the mask that a vision-language model scores highest for it. The paper uses
CLIP for this; here the scores are the anchors' of the mini model, before its heads are trained. Only the names and
concepts of the anchors count as nouns.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.proposals.base import ProposalGenerator
from train.common.image_sets import SMALLEST_REGION, DescribedSet, open_photo
from train.mini import views
from train.mini.nouns import NOUNS, NounFinder

LIKELIEST = 50
"""A match is kept when the noun is among this many of the likeliest nouns of the region."""


class NounMatcher:
    """Matches the nouns of a photo's captions to mask proposals.

    Attributes:
        finder: finds the nouns.

    Args:
        generator: generates the mask proposals.
        image_tower: embeds the regions.
        text_tower: embeds the nouns.
    """

    def __init__(self, generator: ProposalGenerator, image_tower: ImageTower, text_tower: TextTower) -> None:
        self._generator, self._tower = generator, image_tower
        self._anchors = Anchors(image_tower.device)
        self._texts = text_tower(NOUNS)
        self.finder = NounFinder()

    def matches(self, source: DescribedSet) -> Iterator[list[tuple[int, int, list[Tensor]]]]:
        """For each photo, its matches: the number of the photo, the row of the noun, and the views of the region.

        Args:
            source: photos with captions.

        Raises:
            DatasetError: when a photo cannot be read.
        """
        for number, (path, captions) in enumerate(zip(source.photos, source.texts, strict=True)):
            rows = self.finder.agreed(captions)
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
