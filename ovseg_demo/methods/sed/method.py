"""SED as a method of the demo: a decoder turns cost maps into class probabilities, without mask proposals.

Xie et al., "SED: A Simple Encoder-Decoder for Open-Vocabulary Semantic Segmentation", CVPR 2024.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo import image
from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.sed.optimised_decoder import DecoderOutput, OptimisedDecoder
from ovseg_demo.methods.sed.options import SEDOptions
from ovseg_demo.models.base import DenseModel
from ovseg_demo.proposals.base import Report
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.methods.sed.cost_maps import CostMapSource

_EVIDENCE_TITLES = ("Before stage 1", "After stage 1", "After stage 2", "After stage 3")
_EVIDENCE_SIDE = 64
_MAPS_AT_ONCE = 8


@dataclass(frozen=True)
class DecodedPhoto:
    """The decoder's result for one photo.

    Attributes:
        probabilities: float32 (K, h, w) in [0, 1], of the classes that were not rejected.
        kept_classes: the indices of these classes, ascending.
        evidence: heat maps of the classes.
    """

    probabilities: Tensor
    kept_classes: tuple[int, ...]
    evidence: tuple[Evidence, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of probabilities and evidence in memory."""
        return self.probabilities.nbytes + sum(maps.nbytes for maps in self.evidence)


class SED:
    """SED: a source of cost maps and a decoder.

    Args:
        source: makes cost maps and image features.
        decoder: trained on cost maps of this source.
        longest: longest side, in pixels, of the photos that the source is given.
        dense_model: tells which pixels are known; with None, the probabilities of the decoder do.
    """

    def __init__(
        self,
        source: "CostMapSource",
        decoder: OptimisedDecoder,
        longest: int = image.WORKING_SIDE,
        dense_model: DenseModel | None = None,
    ) -> None:
        self._source, self._decoder, self._longest, self._dense_model = source, decoder, longest, dense_model

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: SEDOptions, stages: Stages) -> Segmentation:
        """Segment a photo.

        A pixel's confidence is the probability of its class, which does not depend on the other classes. Without a
        dense model it is also the probability that the pixel is known. With early rejection, a note lists how many
        classes every stage kept.
        """
        name, keep = self._source.name, options.keep_aspect
        features = stages.cached(
            "Reading the photo",
            ("features", photo.key, name, keep),
            lambda _: self._source.embed_image(photo.pixels_for(self._longest), keep),
        )
        texts = class_texts.embed_vocabulary(self._source, vocabulary, stages, self._source.slow_text_encoder)
        decoded = stages.cached(
            "Decoding",
            ("decoded", photo.key, name, keep, tuple(vocabulary.words()), options.rejection),
            lambda report: self._decode(features, texts, options, report),
        )
        dense = self._dense_model
        stage = "Comparing with background words"
        scores = class_texts.score_densely(dense, photo, vocabulary, stages, stage) if dense else None
        with stages.timed("Naming pixels"):
            names = tuple(vocabulary.names[index] for index in decoded.kept_classes)
            result = Segmentation.from_scores(names, decoded.probabilities, photo.pixels.shape[:2], independent=True)
            if dense and scores:
                result = result.in_vocabulary(vocabulary.names, decoded.kept_classes)
                result = known.with_known(result, scores.odds, dense.dense_calibration)
            else:
                result = known.with_known(result, known.odds_of(decoded.probabilities))
                result = result.in_vocabulary(vocabulary.names, decoded.kept_classes)
        notes = (_rejection_note(decoded),) if options.rejection else ()
        return replace(result, notes=notes, evidence=decoded.evidence)

    @torch.inference_mode()
    def _decode(
        self, features: Any, texts: class_texts.ClassTextEmbeddings, options: SEDOptions, report: Report
    ) -> DecodedPhoto:
        class_embeddings = self._source.class_embeddings(texts.embeddings, texts.class_indices)
        cost = self._source.cost_map(features, class_embeddings)
        output = self._decoder(cost, self._source.skips(features), options.rejection, report)
        evidence = tuple(_evidence(cost, output))
        return DecodedPhoto(output.logits[-1].sigmoid_(), tuple(output.kept_classes[-1].tolist()), evidence)


def _evidence(cost: Tensor, output: DecoderOutput) -> Iterator[Evidence]:
    """Cost map of every class, and probabilities after each stage."""
    yield Evidence("Cost map", _shrink(cost.mean(1)), tuple(range(len(cost))))
    for title, logits, indices in zip(_EVIDENCE_TITLES, output.logits, output.kept_classes, strict=True):
        maps = [_shrink(group.sigmoid()) for group in logits.split(_MAPS_AT_ONCE)]
        yield Evidence(title, np.concatenate(maps), tuple(indices.tolist()), (0.0, 1.0))


def _shrink(maps: Tensor) -> np.ndarray:
    """Maps (K, h, w) averaged to at most 64 positions a side: for 847 classes 7 MB instead of 125 MB."""
    shrink = min(1.0, _EVIDENCE_SIDE / max(maps.shape[1:]))
    size = [max(1, round(side * shrink)) for side in maps.shape[1:]]
    return F.interpolate(maps[:, None], size, mode="area")[:, 0].half().cpu().numpy()


def _rejection_note(decoded: DecodedPhoto) -> str:
    """How many classes entered the decoder, and how many each stage kept."""
    count, *kept = (len(step.maps) for step in decoded.evidence[1:])
    return f"Early rejection: {count} word{'s' if count > 1 else ''} → {' → '.join(map(str, kept))}."
