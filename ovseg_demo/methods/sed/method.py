"""SED as a method of the demo: no masks; a decoder turns cost maps into outlines.

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
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.base import Options
from ovseg_demo.methods.sed.optimised_decoder import DecoderOutput, OptimisedDecoder
from ovseg_demo.proposals.base import Report
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.methods.sed.cost_maps import CostMapSource

_STEPS = ("Before stage 1", "After stage 1", "After stage 2", "After stage 3")
_EVIDENCE_SIDE = 64
_MAPS_AT_ONCE = 8


@dataclass(frozen=True)
class DecodedPhoto:
    """What the decoder says of one photo.

    Attributes:
        probabilities: float32 (K, h, w) in [0, 1], of the classes that were not rejected.
        kept: these classes, ascending.
        evidence: of the classes that people asked for.
    """

    probabilities: Tensor
    kept: tuple[int, ...]
    evidence: tuple[Evidence, ...]

    @property
    def nbytes(self) -> int:
        return self.probabilities.nbytes + sum(each.nbytes for each in self.evidence)


class SED:
    """A reader and the decoder that was trained on what it gives.

    Args:
        reader: reads photos and words.
        inference: the decoder.
        longest: longest side in pixels of the photos that the reader is given.
    """

    def __init__(self, reader: "CostMapSource", inference: OptimisedDecoder, longest: int = image.WORKING_SIDE) -> None:
        self._reader, self._inference, self._longest = reader, inference, longest

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        """A pixel's confidence is the probability of its class, whatever the other classes.

        One class alone competes with its rival; with rejection, a note says how many classes every layer kept.
        """
        name, keep = self._reader.name, options.keep_aspect
        read = stages.cached(
            "Reading the photo",
            ("features", photo.key, name, keep),
            lambda _: self._reader.embed_image(photo.pixels_for(self._longest), keep),
        )
        texts = class_texts.embed_vocabulary(self._reader, vocabulary, stages, self._reader.slow_texts)
        decision = stages.cached(
            "Decoding",
            ("decision", photo.key, name, keep, tuple(vocabulary.words()), options.rejection),
            lambda report: self._decide(read, texts, len(vocabulary), options, report),
        )
        with stages.timed("Naming pixels"):
            drawn = [index for index in decision.kept if index < len(vocabulary)]
            names = tuple(vocabulary.names[index] for index in drawn)
            found = Segmentation.from_scores(names, decision.probabilities, photo.pixels.shape[:2], independent=True)
            found = found.among(vocabulary.names, drawn)
        notes = (_told(decision),) if options.rejection else ()
        return replace(found, notes=notes, evidence=decision.evidence)

    @torch.inference_mode()
    def _decide(
        self, read: Any, texts: class_texts.ClassTextEmbeddings, classes: int, options: Options, report: Report
    ) -> DecodedPhoto:
        cost = self._reader.cost(read, self._reader.class_texts(texts.embeddings, texts.class_indices))
        decoded = self._inference(cost, self._reader.skips(read), options.rejection, report)
        evidence = tuple(_evidence(cost, decoded, classes))
        return DecodedPhoto(decoded.logits[-1].sigmoid_(), tuple(decoded.kept[-1].tolist()), evidence)


def _evidence(cost: Tensor, decoded: DecoderOutput, classes: int) -> Iterator[Evidence]:
    """The cost map, and what the decoder makes of it step by step; of the first `classes` only, so of no rival."""
    yield Evidence("Cost map", _small(cost[:classes].mean(1)), tuple(range(classes)))
    for title, logits, kept in zip(_STEPS, decoded.logits, decoded.kept, strict=True):
        asked = kept[kept < classes]
        maps = [_small(some.sigmoid()) for some in logits[: len(asked)].split(_MAPS_AT_ONCE)]
        yield Evidence(title, np.concatenate(maps), tuple(asked.tolist()), (0.0, 1.0))


def _small(maps: Tensor) -> np.ndarray:
    """Maps (K, h, w) at no more than 64 places a side: those of 847 classes are 125 MB at full size, 7 MB so."""
    shrink = min(1.0, _EVIDENCE_SIDE / max(maps.shape[1:]))
    size = [max(1, round(side * shrink)) for side in maps.shape[1:]]
    return F.interpolate(maps[:, None], size, mode="area")[:, 0].half().cpu().numpy()


def _told(decision: DecodedPhoto) -> str:
    """The classes that entered the decoder, and those that came out of each stage."""
    asked, *left = (len(each.classes) for each in decision.evidence[1:])
    return f"Early rejection: {asked} word{'s' if asked > 1 else ''} → {' → '.join(map(str, left))}."
