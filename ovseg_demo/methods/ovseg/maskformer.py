"""OVSeg as published: MaskFormer's masks, named by the CLIP that was adapted to them.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), in both of its forms: that of
the demo, where CLIP alone names binary masks and granularity chooses among them, and that of the evaluation, where
soft masks add up with the class probabilities of MaskFormer and CLIP together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.image import READING_SIDE, Photo
from ovseg_demo.methods import class_texts
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
    """What the published models with one backbone share beside it.

    Attributes:
        architecture: open_clip name of the CLIP.
        shortest, longest: sides in pixels that a photo is resized to.
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


class MaskFormerProposals:
    """MaskFormer's masks as binary proposals, those without any pixel left out."""

    def __init__(self, predictor: MaskFormerPredictor, name: str, threshold: float) -> None:
        self.name = name
        self._predictor = predictor
        self._threshold = threshold

    def propose(self, image: np.ndarray, report: Report) -> MaskProposals:
        """Up to 100 masks of an RGB image, uint8 (H, W, 3). Their scores are the mean probability of their pixels."""
        output = self._predictor.read(image)
        report(1)
        return proposals_at(output, self._threshold, image.shape[:2])


class OVSegMaskFormer:
    """MaskFormer and CLIP of one published model.

    Args:
        predictor: MaskFormer with its rule for resizing photos.
        vlm: the CLIP.
        non_object: (1, D), the text embedding of "no object", which MaskFormer was trained with.
        name: names the weights in caches.
        threshold: mask probability above which a pixel belongs to a mask in evaluation, as in `PublishedSettings`.
    """

    def __init__(
        self, predictor: MaskFormerPredictor, vlm: VisionLanguageModel, non_object: Tensor, name: str, threshold: float
    ) -> None:
        self._predictor, self._vlm, self._name, self._threshold = predictor, vlm, f"maskformer-{name}", threshold
        self._non_object = F.normalize(non_object.float().cpu(), dim=-1)

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: MaskFormerOptions, stages: Stages) -> Segmentation:
        output = stages.cached(
            "Reading the photo",
            ("reading", photo.key, self._name),
            lambda _: self._predictor.read(photo.pixels_for(READING_SIDE)),
        )
        if options.ensemble is None:
            return self._name_by_clip(output, photo, vocabulary, options, stages)
        return self._ensemble(output, photo, vocabulary, options.ensemble, stages)

    def _name_by_clip(
        self, output: MaskFormerOutput, photo: Photo, vocabulary: Vocabulary, options: MaskFormerOptions, stages: Stages
    ) -> Segmentation:
        """The demo: masks, crops and painting are all of the resized photo; only the painted scores are enlarged."""
        proposals = stages.cached(
            "Finding masks", ("masks", photo.key, self._name), lambda _: binary_masks(output, DEMO_THRESHOLD)[0]
        )
        masks = method.ProposedMasks(proposals, output.pixels, self._name)
        return method.name_masks(masks, self._vlm, photo, vocabulary, options, stages)

    def _ensemble(
        self, output: MaskFormerOutput, photo: Photo, vocabulary: Vocabulary, weight: float, stages: Stages
    ) -> Segmentation:
        proposals, valid = binary_masks(output, self._threshold)
        regions = stages.cached(
            "Reading regions",
            ("regions", photo.key, self._name, self._threshold, self._vlm.name),
            lambda report: self._vlm.embed_regions(output.pixels, proposals, report),
        )
        texts = class_texts.embed_vocabulary(self._vlm, vocabulary, stages)
        with stages.timed("Fusing"):
            by_clip = texts.of_classes(self._vlm.logits(regions, texts.embeddings)).softmax(-1).cpu()
            by_maskformer = self._class_probabilities(output.classes.cpu(), texts)
            scores = ensemble_scores(by_maskformer, by_clip, valid, weight)
            return Segmentation.from_scores(vocabulary.names, sum_soft_masks(scores, output), photo.pixels.shape[:2])

    def _class_probabilities(self, classes: Tensor, texts: class_texts.ClassTextEmbeddings) -> Tensor:
        """MaskFormer's own, (Q, C): a softmax over the classes and "no object", which then is left out."""
        queries = F.normalize(classes, dim=-1)
        logits = texts.of_classes(LOGIT_SCALE * queries @ texts.embeddings.T.cpu())
        nothing = LOGIT_SCALE * queries @ self._non_object.T
        return torch.cat([logits, nothing], 1).softmax(-1)[:, :-1]


def binary_masks(output: MaskFormerOutput, threshold: float) -> tuple[MaskProposals, Tensor]:
    """Non-empty binary masks at the size of the resized photo, and which of all Q queries they are of, bool (Q,)."""
    masks, mean_probabilities = [], []
    for logits in output.masks():
        probabilities = logits.sigmoid()
        inside = probabilities > threshold
        masks.append(inside.cpu())
        mean_probabilities.append(((probabilities * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)).cpu())
    inside = torch.cat(masks)
    valid = inside.flatten(1).any(1)
    return MaskProposals.from_masks(inside[valid].numpy(), torch.cat(mean_probabilities)[valid].numpy()), valid


def proposals_at(output: MaskFormerOutput, threshold: float, size: tuple[int, int]) -> MaskProposals:
    """The masks with a pixel above a probability, at another size (H, W)."""
    found, _ = binary_masks(output, threshold)
    return found.resized(size).without_empty()


def ensemble_scores(by_maskformer: Tensor, by_clip: Tensor, valid: Tensor, weight: float) -> Tensor:
    """Class scores (Q, C): A^(1 - weight) C^weight (Liang et al. 2023, section 4.1).

    Args:
        by_maskformer: A, (Q, C) in [0, 1].
        by_clip: C, (V, C) in [0, 1], of the V valid masks.
        valid: bool (Q,). Of masks that CLIP has not seen, A^(1 - weight) stands alone, except at a weight of 0: the
            released code then takes CLIP's scores, and the other masks are left out.
        weight: 0 to 1.
    """
    everywhere = torch.full_like(by_maskformer, float(weight != 0))
    everywhere[valid] = by_clip
    return everywhere if weight == 0 else by_maskformer ** (1 - weight) * everywhere**weight


def sum_soft_masks(scores: Tensor, output: MaskFormerOutput) -> Tensor:
    """Scores (Q, C) of all masks at every pixel, each mask's weighted by its probability there: float32 (C, h, w)."""
    total, first = 0, 0
    for logits in output.masks():
        some = scores[first : first + len(logits)].to(logits)
        total = total + torch.einsum("qc,qhw->chw", some, logits.sigmoid())
        first += len(logits)
    return total


def load_ovseg_maskformer(
    checkpoint_id: str, device: str, clip: Callable[[str], ClipRegionClassifier]
) -> OVSegMaskFormer:
    """A model as published, in one file. Raises CheckpointError when it is missing, damaged or does not fit.

    Args:
        checkpoint_id: catalogue id.
        device: where it runs.
        clip: makes the file's CLIP, given its architecture; other methods may share it.
    """
    released = checkpoint.split_checkpoint(loading.load_state_dict(checkpoint_id), catalogue.get(checkpoint_id).file)
    settings = PUBLISHED_SETTINGS[released.backbone]
    vlm = clip(settings.architecture).with_templates(VILD_TEMPLATES)
    return OVSegMaskFormer(
        create_predictor(released, device), vlm, released.non_object, checkpoint_id, settings.threshold
    )


def create_predictor(released: checkpoint.ReleasedModel, device: str | torch.device) -> MaskFormerPredictor:
    """The MaskFormer of a published model, shown photos at the size it was trained for."""
    settings = PUBLISHED_SETTINGS[released.backbone]
    return MaskFormerPredictor(checkpoint.load_maskformer(released, device), settings.shortest, settings.longest)
