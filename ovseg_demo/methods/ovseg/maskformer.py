"""OVSeg as published: MaskFormer's masks, named by the CLIP that was adapted to them.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), in both of its forms: that of
the demo, where CLIP alone names binary masks and granularity chooses among them, and that of the evaluation, where
soft masks add up with the class probabilities of MaskFormer and CLIP together.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.image import READING_SIDE, Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.ovseg import method
from ovseg_demo.methods.ovseg.options import MaskFormerOptions
from ovseg_demo.models.base import VisionLanguageModel
from ovseg_demo.models.clip.region_classifier import LOGIT_SCALE, ClipRegionClassifier
from ovseg_demo.models.clip.templates import VILD_TEMPLATES
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.proposals.maskformer import checkpoint
from ovseg_demo.proposals.maskformer.predictor import MaskFormerOutput, MaskFormerPredictor
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary
from ovseg_demo.weights import catalogue, loading

DEMO_THRESHOLD = 0.35
"""Mask probability above which a pixel belongs to a mask, in OVSeg's demo."""


@dataclass(frozen=True)
class PublishedSettings:
    """The settings of the published models with one backbone.

    Attributes:
        architecture: open_clip name of the CLIP.
        shortest: pixels of the shorter side of the resized photo.
        longest: most pixels of its longer side.
        threshold: mask probability above which a pixel belongs to a mask, in evaluation.
    """

    architecture: str
    shortest: int
    longest: int
    threshold: float


PUBLISHED_SETTINGS = {
    "r101c": PublishedSettings("ViT-B-16-quickgelu", 512, 2048, 0.5),
    "swinb": PublishedSettings("ViT-L-14-quickgelu", 640, 2560, 0.4),
}
"""By backbone."""


class MaskFormerProposals:
    """MaskFormer as a `ProposalGenerator`.

    Args:
        predictor: MaskFormer with its rule for resizing photos.
        name: identifies the masks that it proposes, for caches.
        threshold: mask probability above which a pixel belongs to a mask, 0 to 1.
    """

    def __init__(self, predictor: MaskFormerPredictor, name: str, threshold: float) -> None:
        self.name = name
        self._predictor = predictor
        self._threshold = threshold

    def propose(self, image: np.ndarray, report: Report) -> MaskProposals:
        """The masks with at least one pixel, scored by the mean mask probability of their pixels.

        Args:
            image: uint8 (H, W, 3), RGB.
            report: called once, with 1, when the masks are predicted.
        """
        output = self._predictor.predict(image)
        report(1)
        return proposals_at(output, self._threshold, image.shape[:2])


class OVSegMaskFormer:
    """MaskFormer and CLIP of one published model.

    Args:
        predictor: MaskFormer with its rule for resizing photos.
        vlm: the CLIP.
        non_object: (1, D), the text embedding of "no object", which MaskFormer was trained with.
        name: identifies the weights, for caches.
        threshold: mask probability above which a pixel belongs to a mask in evaluation, as in `PublishedSettings`.
    """

    def __init__(
        self, predictor: MaskFormerPredictor, vlm: VisionLanguageModel, non_object: Tensor, name: str, threshold: float
    ) -> None:
        self._predictor, self._vlm, self._name, self._threshold = predictor, vlm, f"maskformer-{name}", threshold
        self._non_object = F.normalize(non_object.float().cpu(), dim=-1)

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: MaskFormerOptions, stages: Stages) -> Segmentation:
        """Segment a photo as OVSeg's demo does, or, with `options.ensemble`, as its evaluation does."""
        output = stages.cached(
            "Reading the photo",
            ("reading", photo.key, self._name),
            lambda _: self._predictor.predict(photo.pixels_for(READING_SIDE)),
        )
        if options.ensemble is None:
            return self._name_by_clip(output, photo, vocabulary, options, stages)
        return self._ensemble(output, photo, vocabulary, options, stages)

    def _name_by_clip(
        self, output: MaskFormerOutput, photo: Photo, vocabulary: Vocabulary, options: MaskFormerOptions, stages: Stages
    ) -> Segmentation:
        """OVSeg's demo: masks and crops are those of the resized photo; only the painted scores are enlarged."""
        proposals = stages.cached(
            "Finding masks", ("masks", photo.key, self._name), lambda _: binary_masks(output, DEMO_THRESHOLD)[0]
        )
        masks = method.ProposedMasks(proposals, output.pixels, self._name)
        return method.name_masks(masks, self._vlm, photo, vocabulary, options, stages)

    def _ensemble(
        self, output: MaskFormerOutput, photo: Photo, vocabulary: Vocabulary, options: MaskFormerOptions, stages: Stages
    ) -> Segmentation:
        """OVSeg's evaluation: soft masks weight the class probabilities of MaskFormer and CLIP together."""
        weight = options.ensemble
        assert weight is not None
        proposals, valid = binary_masks(output, self._threshold)
        regions = stages.cached(
            "Reading regions",
            ("regions", photo.key, self._name, self._threshold, self._vlm.name),
            lambda report: self._vlm.embed_regions(output.pixels, proposals, report),
        )
        texts = class_texts.embed_vocabulary(self._vlm, vocabulary, stages)
        by_clip = method.score_regions(self._vlm, regions, vocabulary, stages)
        with stages.timed("Fusing"):
            by_maskformer = self._class_probabilities(output.class_embeddings.cpu(), texts)
            scores = ensemble_scores(by_maskformer, by_clip.probabilities.T.cpu(), valid, weight)
            total = sum_soft_masks(scores, output)
            result = Segmentation.from_scores(vocabulary.names, total, photo.pixels.shape[:2])
            if not options.unlabelled:  # a second sum over all masks and classes is not for nothing
                return result
            fitting = torch.zeros_like(scores)
            fitting[valid] = by_clip.odds.T.cpu().sigmoid()
            share = sum_soft_masks(scores * fitting, output) / total.clamp(min=torch.finfo(total.dtype).tiny)
            result = known.with_known(result, known.odds_of(share))
            return replace(result, presence=known.presence(by_clip.odds, self._vlm.calibration))

    def _class_probabilities(self, class_embeddings: Tensor, texts: class_texts.ClassTextEmbeddings) -> Tensor:
        """MaskFormer's class probabilities (Q, C) from its class embeddings (Q, D).

        The softmax also runs over "no object", whose probability is left out.
        """
        queries = F.normalize(class_embeddings, dim=-1)
        logits = texts.of_classes(LOGIT_SCALE * queries @ texts.embeddings.T.cpu())
        no_object = LOGIT_SCALE * queries @ self._non_object.T
        return torch.cat([logits, no_object], 1).softmax(-1)[:, :-1]


def binary_masks(output: MaskFormerOutput, threshold: float) -> tuple[MaskProposals, Tensor]:
    """Binary masks at the size of the resized photo.

    Args:
        output: MaskFormer's predictions for the photo, with Q queries.
        threshold: mask probability above which a pixel belongs to a mask, 0 to 1.

    Returns:
        The masks with at least one pixel, scored by the mean mask probability of their pixels, in the order of the
        queries; and bool (Q,), the queries of these masks.
    """
    masks, mean_probabilities = [], []
    for logits in output.enlarged_mask_logits():
        probabilities = logits.sigmoid()
        inside = probabilities > threshold
        masks.append(inside.cpu())
        mean_probabilities.append(((probabilities * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)).cpu())
    inside = torch.cat(masks)
    valid = inside.flatten(1).any(1)
    return MaskProposals.from_masks(inside[valid].numpy(), torch.cat(mean_probabilities)[valid].numpy()), valid


def proposals_at(output: MaskFormerOutput, threshold: float, size: tuple[int, int]) -> MaskProposals:
    """Binary masks at another size.

    Args:
        output: MaskFormer's predictions for a photo.
        threshold: mask probability above which a pixel belongs to a mask, 0 to 1.
        size: (H, W) of the masks.

    Returns:
        The masks with at least one pixel at this size; see `binary_masks`.
    """
    proposals, _ = binary_masks(output, threshold)
    return proposals.resized(size).without_empty()


def ensemble_scores(by_maskformer: Tensor, by_clip: Tensor, valid: Tensor, weight: float) -> Tensor:
    """Class scores (Q, K) of K classes: A^(1 - weight) C^weight (Liang et al. 2023, section 4.1).

    Masks that CLIP has not classified get A^(1 - weight). At a weight of 0 the released code, against its formula,
    takes CLIP's probabilities alone, and 0 for masks that CLIP has not classified.

    Args:
        by_maskformer: A, class probabilities (Q, K) of all Q masks.
        by_clip: C, class probabilities (V, K) of the V masks that CLIP has classified.
        valid: bool (Q,), the masks that CLIP has classified.
        weight: 0 to 1.
    """
    clip_of_all = torch.full_like(by_maskformer, float(weight != 0))
    clip_of_all[valid] = by_clip
    return clip_of_all if weight == 0 else by_maskformer ** (1 - weight) * clip_of_all**weight


def sum_soft_masks(scores: Tensor, output: MaskFormerOutput) -> Tensor:
    """Class scores of every pixel: the sum over the masks of the mask's probability times its class scores.

    This is MaskFormer's semantic inference (Cheng et al. 2021, section 3.4).

    Args:
        scores: class scores (Q, C) of the masks.
        output: MaskFormer's predictions for a photo.

    Returns:
        float32 (C, h, w), at the size of the resized photo.
    """
    height, width = output.pixels.shape[:2]
    total, first = output.mask_logits.new_zeros(scores.shape[1], height, width), 0
    for logits in output.enlarged_mask_logits():
        group = scores[first : first + len(logits)].to(logits)
        total += torch.einsum("qc,qhw->chw", group, logits.sigmoid())
        first += len(logits)
    return total


def load_ovseg_maskformer(
    checkpoint_id: str, device: str, clip: Callable[[str], ClipRegionClassifier]
) -> OVSegMaskFormer:
    """Load a published model of MaskFormer and CLIP from one file.

    Args:
        checkpoint_id: id of the file in the catalogue.
        device: where MaskFormer runs.
        clip: makes the CLIP of the file from its open_clip architecture; other methods may share this CLIP.

    Raises CheckpointError when the file is missing, damaged or does not fit.
    """
    released = checkpoint.split_checkpoint(loading.load_state_dict(checkpoint_id), catalogue.get(checkpoint_id).file)
    settings = PUBLISHED_SETTINGS[released.backbone]
    vlm = clip(settings.architecture).with_templates(VILD_TEMPLATES)
    return OVSegMaskFormer(
        create_predictor(released, device), vlm, released.non_object, checkpoint_id, settings.threshold
    )


def create_predictor(released: checkpoint.ReleasedModel, device: str | torch.device) -> MaskFormerPredictor:
    """The MaskFormer of a published model, with its published rule for resizing photos.

    Args:
        released: the parts of the model's file.
        device: where MaskFormer runs.
    """
    settings = PUBLISHED_SETTINGS[released.backbone]
    return MaskFormerPredictor(checkpoint.load_maskformer(released, device), settings.shortest, settings.longest)
