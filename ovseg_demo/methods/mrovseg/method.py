"""MROVSeg as a method of the demo: masks of queries, found at two resolutions, whose embeddings words name.

Zhu et al., "MROVSeg: Breaking the Resolution Curse of Vision-Language Models in Open-Vocabulary Semantic Segmentation",
arXiv 2408.14776.
"""

from dataclasses import replace

import torch

from ovseg_demo import image
from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.mrovseg.evidence import evidence
from ovseg_demo.methods.mrovseg.options import MROVSegOptions
from ovseg_demo.methods.mrovseg.reader import QueryReader
from ovseg_demo.methods.mrovseg.scores import PhotoQueries, QueryClasses, QueryScores, class_probabilities, known_share
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class MROVSeg:
    """MROVSeg.

    Args:
        reader: finds masks and class embeddings of photos, and embeds words.
        longest: longest side, in pixels, of the photos that the reader is given.
    """

    def __init__(self, reader: QueryReader, longest: int = image.WORKING_SIDE) -> None:
        self._reader, self._longest = reader, longest

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: MROVSegOptions, stages: Stages) -> Segmentation:
        """Segment a photo.

        A pixel's confidence is the score of its class as a share of the scores of all classes. How well a word fits is
        told by background words and by the void embedding; with `options.unlabelled` at 0 it is not computed.
        """
        reader, short_side = self._reader, options.short_side
        queries = stages.cached(
            "Reading the photo",
            ("queries", photo.key, reader.name, short_side),
            lambda report: reader.read(photo.pixels_for(self._longest), short_side, report),
        )
        classes = self._name(queries, vocabulary, options, stages)
        with stages.timed("Naming pixels"), torch.inference_mode():
            size = photo.pixels.shape[:2]
            scores = QueryScores(queries, classes.probabilities, size)
            result = Segmentation.from_scores(vocabulary.names, scores, size)
            if classes.known is not None:
                result = known.with_known(result, known.odds_of(known_share(queries, classes)))
                result = replace(result, presence=known.presence(known.odds_of(classes.known.mT)))
            shown = tuple(evidence(queries, classes.probabilities, vocabulary.names))
        return replace(result, evidence=shown, notes=(_size_note(queries),))

    def _name(
        self, queries: PhotoQueries, vocabulary: Vocabulary, options: MROVSegOptions, stages: Stages
    ) -> QueryClasses:
        """Compare the queries with the words, and, unless all pixels are labelled, with background words."""
        texts = class_texts.embed_vocabulary(self._reader, vocabulary, stages, exclusive=True)
        logits = self._reader.class_logits(queries.embeddings, texts.embeddings)
        probabilities = class_probabilities(logits, texts)
        if not options.unlabelled:
            return QueryClasses(probabilities, None)
        background = class_texts.embed_background(self._reader, vocabulary, stages, exclusive=True)
        rivals = self._reader.class_logits(queries.embeddings, background)[:, :-1]
        odds = class_texts.class_scores(torch.cat([logits[:, :-1], rivals], 1).mT, texts, UNCALIBRATED).odds
        # Of a query that is void no class is known, whatever it resembles.
        return QueryClasses(probabilities, odds.mT.sigmoid() * probabilities.sum(1, keepdim=True))


def _size_note(queries: PhotoQueries) -> str:
    height, width = queries.read
    return f"Read at {width} × {height} pixels in slices, and as a whole at a smaller size."
