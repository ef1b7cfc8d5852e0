"""TagCLIP as a method of the demo: masks of words, weighted by the probability that a pixel's class was not seen in
training."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ovseg_demo import image
from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.tagclip.decoder import Decoder, MaskLogits
from ovseg_demo.methods.tagclip.options import TagCLIPOptions
from ovseg_demo.methods.tagclip.scores import SEEN_PENALTY, ScoreRule, class_scores, trusty_map
from ovseg_demo.methods.tagclip.training_info import TrainingInfo
from ovseg_demo.methods.tagclip.windows import WindowedPhoto, WindowEncoder
from ovseg_demo.models.base import DenseModel
from ovseg_demo.result import Evidence, Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary, comparison_key

_EVIDENCE_STEP = 8


class TagCLIP:
    """TagCLIP or ZegCLIP: an encoder of photos and words, and a decoder.

    Args:
        encoder: embeds photos and words.
        decoder: trained on embeddings of this encoder; it is put in evaluation mode.
        info: how the decoder was trained.
        longest: longest side, in pixels, of the photos that the encoder is given.
        dense_model: tells which pixels are known; with None, the mask probabilities do.
    """

    def __init__(
        self,
        encoder: WindowEncoder,
        decoder: Decoder,
        info: TrainingInfo,
        longest: int = image.WORKING_SIDE,
        dense_model: DenseModel | None = None,
    ) -> None:
        self._encoder, self._decoder, self._info = encoder, decoder.eval().requires_grad_(False), info
        self._longest, self._dense_model = longest, dense_model

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: TagCLIPOptions, stages: Stages) -> Segmentation:
        """Segment a photo.

        A pixel's confidence is the score of its class, which does not depend on the other classes. Without a dense
        model its unweighted mask probability tells whether the pixel is known.
        """
        name = self._encoder.name
        windows = stages.cached(
            "Reading the photo",
            ("windows", photo.key, name),
            lambda report: self._encoder.embed_image(photo.pixels_for(self._longest), report),
        )
        texts = class_texts.embed_vocabulary(self._encoder, vocabulary, stages, self._encoder.slow_text_encoder)
        logits = stages.cached(
            "Decoding",
            ("mask logits", photo.key, name, tuple(vocabulary.words())),
            lambda _: self._decode(windows, texts),
        )
        dense = self._dense_model
        stage = "Comparing with background words"
        scores = class_texts.score_densely(dense, photo, vocabulary, stages, stage) if dense else None
        with stages.timed("Naming pixels"), torch.inference_mode():
            seen = self.seen(vocabulary, options.seen)
            rule = self._rule(seen, logits, options)
            # Scores lie between minus the penalty and 1, confidences between 0 and 1.
            confidences = class_scores(windows, logits, rule).add_(rule.seen_penalty).div_(1 + rule.seen_penalty)
            result = Segmentation.from_scores(vocabulary.names, confidences, photo.pixels.shape[:2], independent=True)
            if dense and scores:
                result = known.with_known(result, scores.odds, dense.dense_calibration)
            else:
                masks = class_scores(windows, logits, _unweighted(rule), _EVIDENCE_STEP)
                result = known.with_known(result, known.odds_of(masks))
            evidence = tuple(_evidence(windows, logits, rule))
        return replace(result, evidence=evidence, notes=tuple(_seen_note(vocabulary, seen, rule)))

    def seen(self, vocabulary: Vocabulary, marked: tuple[str, ...] | None) -> tuple[bool, ...]:
        """Whether each class counts as seen in training, which it does when one of its words does.

        Args:
            vocabulary: the classes.
            marked: words that count as seen; None for the words of the classes whose masks training has shown.
        """
        seen_words = {comparison_key(word) for word in (self._info.seen_words if marked is None else marked)}
        seen = [False] * len(vocabulary)
        for index, word in vocabulary.words():
            seen[index] |= comparison_key(word) in seen_words
        return tuple(seen)

    @torch.inference_mode()
    def _decode(self, windows: WindowedPhoto, texts: class_texts.ClassTextEmbeddings) -> MaskLogits:
        """Mask logits of all classes on every window."""
        images = windows.embeddings
        logits = self._decoder(images, texts.embeddings.to(images.patches.device))
        return replace(logits, classes=texts.of_classes(logits.classes.movedim(1, -1)).movedim(-1, 1))

    def _rule(self, seen: tuple[bool, ...], logits: MaskLogits, options: TagCLIPOptions) -> ScoreRule:
        seen_penalty = SEEN_PENALTY if self._info.seen_penalty and options.recipe == "code" else 0.0
        return ScoreRule(seen, seen_penalty, options.trusty and logits.trusty is not None)


def _unweighted(rule: ScoreRule) -> ScoreRule:
    """The rule by which a score is the mask probability itself."""
    return replace(rule, seen_penalty=0.0, trusty_weighting=False)


def _seen_note(vocabulary: Vocabulary, seen: tuple[bool, ...], rule: ScoreRule) -> Iterator[str]:
    """A note that lists the classes that counted as seen, where that made a difference."""
    if rule.seen_penalty or rule.trusty_weighting:
        names = [name for name, is_seen in zip(vocabulary.names, seen, strict=True) if is_seen]
        yield f"Counted as seen in training: {', '.join(names) or 'none of the words'}."


def _evidence(windows: WindowedPhoto, logits: MaskLogits, rule: ScoreRule) -> Iterator[Evidence]:
    """Heat maps of the mask probabilities, of the trusty map, and of the weighted mask probabilities."""
    indices, limits, step = tuple(range(len(rule.seen))), (0.0, 1.0), _EVIDENCE_STEP
    yield Evidence("Mask", _half(class_scores(windows, logits, _unweighted(rule), step)), indices, limits)
    if logits.trusty is not None:
        yield Evidence("Trusty map: how new it looks", _half(trusty_map(windows, logits, step)), None, limits)
    if rule.trusty_weighting:
        weighted = class_scores(windows, logits, rule, step)
        yield Evidence("Mask, weighted", _half(weighted), indices, limits)


def _half(maps: Tensor) -> np.ndarray:
    return maps.clamp_(min=0).half().cpu().numpy()
