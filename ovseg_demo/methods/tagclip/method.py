"""TagCLIP as a method of the demo: masks of words, weighted by how new a region looks to the model."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ovseg_demo import image
from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.base import Options
from ovseg_demo.methods.tagclip.decoder import Decoder, MaskLogits
from ovseg_demo.methods.tagclip.scores import SEEN_PENALTY, ScoreRule, class_scores, trusty_map
from ovseg_demo.methods.tagclip.training_info import TrainingInfo
from ovseg_demo.methods.tagclip.windows import EncodedPhoto, WindowEncoder
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary, comparison_key

_EVIDENCE_STEP = 8


class TagCLIP:
    """A reader and the decoder that was trained on what it gives.

    Args:
        reader: reads photos and words.
        decoder: makes the mask logits; it is put in evaluation mode.
        info: what training has shown the model.
        longest: longest side in pixels of the photos that the reader is given.
    """

    def __init__(
        self, reader: WindowEncoder, decoder: Decoder, info: TrainingInfo, longest: int = image.WORKING_SIDE
    ) -> None:
        self._reader, self._decoder, self._info = reader, decoder.eval().requires_grad_(False), info
        self._longest = longest

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        """A pixel's confidence is its class's score, whatever the other classes; one class alone has a rival."""
        name = self._reader.name
        windows = stages.cached(
            "Reading the photo",
            ("windows", photo.key, name),
            lambda report: self._reader.embed_image(photo.pixels_for(self._longest), report),
        )
        texts = class_texts.embed_vocabulary(self._reader, vocabulary, stages, self._reader.slow_texts)
        logits = stages.cached(
            "Decoding",
            ("mask logits", photo.key, name, tuple(vocabulary.words())),
            lambda _: self._decode(windows, texts),
        )
        with stages.timed("Naming pixels"), torch.inference_mode():
            seen = self.seen(vocabulary, options.seen)
            rule = self._rule(seen, logits, options)
            # No score is below minus the seen_penalty; none may be below 0.
            found = class_scores(windows, logits, rule).add_(rule.seen_penalty).div_(1 + rule.seen_penalty)
            result = Segmentation.from_scores(vocabulary.names, found, photo.pixels.shape[:2], independent=True)
            evidence = tuple(_evidence(windows, logits, rule, len(vocabulary)))
        return replace(result, evidence=evidence, notes=tuple(_told(vocabulary, seen, rule)))

    def seen(self, vocabulary: Vocabulary, marked: tuple[str, ...] | None) -> tuple[bool, ...]:
        """Of each class, whether it counts as seen: one of its words is marked, or was taught where none are given."""
        known = {comparison_key(word) for word in (self._info.seen_words if marked is None else marked)}
        found = [False] * len(vocabulary)
        for index, word in vocabulary.words():
            found[index] |= comparison_key(word) in known
        return tuple(found)

    @torch.inference_mode()
    def _decode(self, windows: EncodedPhoto, texts: class_texts.ClassTextEmbeddings) -> MaskLogits:
        logits = self._decoder(windows.encoded, texts.embeddings.to(windows.encoded.patches.device))
        return replace(logits, classes=texts.of_classes(logits.classes.movedim(1, -1)).movedim(-1, 1))

    def _rule(self, seen: tuple[bool, ...], logits: MaskLogits, options: Options) -> ScoreRule:
        """The rule for all classes of the logits; a rival is treated as the one class that it rivals."""
        seen_penalty = SEEN_PENALTY if self._info.seen_penalty and options.recipe == "code" else 0.0
        rivals = logits.classes.shape[1] - len(seen)
        return ScoreRule(seen + seen[:1] * rivals, seen_penalty, options.trusty and logits.trusty is not None)


def _told(vocabulary: Vocabulary, seen: tuple[bool, ...], rule: ScoreRule) -> Iterator[str]:
    """What counted as seen, where that made a difference."""
    if rule.seen_penalty or rule.trusty:
        names = [name for name, known in zip(vocabulary.names, seen, strict=True) if known]
        yield f"Counted as seen in training: {', '.join(names) or 'none of the words'}."


def _evidence(windows: EncodedPhoto, logits: MaskLogits, rule: ScoreRule, classes: int) -> Iterator[Evidence]:
    """The masks of the first `classes`, so of no rival; how new each place looks; and what both make together."""
    everyone, limits, step = tuple(range(classes)), (0.0, 1.0), _EVIDENCE_STEP
    masks = class_scores(windows, logits, replace(rule, seen_penalty=0.0, trusty=False), step)
    yield Evidence("Mask", _small(masks[:classes]), everyone, limits)
    if logits.trusty is not None:
        yield Evidence("Trusty map: how new it looks", _small(trusty_map(windows, logits, step)), None, limits)
    if rule.trusty:
        weighted = class_scores(windows, logits, rule, step)
        yield Evidence("Mask, weighted", _small(weighted[:classes]), everyone, limits)


def _small(maps: Tensor) -> np.ndarray:
    return maps.clamp_(min=0).half().cpu().numpy()
