"""OVSeg: mask proposals, each named by a vision-language model from its masked crop.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), in the form of its public
demo: class scores of a region are a softmax over the vocabulary alone, and granularity decides which masks paint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.ovseg import fusion
from ovseg_demo.methods.ovseg.granularity import choose_granularity
from ovseg_demo.methods.ovseg.options import OVSegOptions, SamOptions
from ovseg_demo.models.base import DenseModel, VisionLanguageModel
from ovseg_demo.proposals.base import MaskProposals, ProposalGenerator
from ovseg_demo.proposals.cells import cut_cells
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class OVSegWithProposals:
    """OVSeg with mask proposals that do not depend on the vocabulary, at the size of the photo.

    Args:
        generators: proposal generators by name of the setting that chooses them, `SamOptions.proposals`.
        vlm: classifies the masks.
        dense_model: classifies pixels without a mask, and is averaged with the VLM elsewhere, see `fusion.fuse_masks`.
            With None, pixels without a mask stay unlabelled.
    """

    def __init__(
        self,
        generators: Mapping[str, ProposalGenerator],
        vlm: VisionLanguageModel,
        dense_model: DenseModel | None = None,
    ) -> None:
        self._generators = generators
        self._vlm = vlm
        self._dense_model = dense_model

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: SamOptions, stages: Stages) -> Segmentation:
        """A label for every pixel of `photo`, -1 where no mask is painted and there is no dense model."""
        generator = self._generators[options.proposals]
        proposals = stages.cached(
            "Finding masks",
            ("masks", photo.key, generator.name),
            lambda report: generator.propose(photo.pixels, report),
        )
        masks = ProposedMasks(proposals, photo.pixels, generator.name)
        return name_masks(masks, self._vlm, photo, vocabulary, options, stages, self._dense_model)


@dataclass(frozen=True)
class ProposedMasks:
    """Mask proposals, with the image that they are masks of.

    Attributes:
        proposals: N masks of the image.
        pixels: uint8 (h, w, 3), RGB, the photo as it was resized for the proposal generator.
        generator: identifies the proposal generator, for caches.
    """

    proposals: MaskProposals
    pixels: np.ndarray
    generator: str


def name_masks(
    masks: ProposedMasks,
    vlm: VisionLanguageModel,
    photo: Photo,
    vocabulary: Vocabulary,
    options: OVSegOptions,
    stages: Stages,
    dense_model: DenseModel | None = None,
) -> Segmentation:
    """Classify mask proposals by their crops, and fuse the selected masks into a segmentation.

    Args:
        masks: of the photo, at any size; scores are interpolated to the size of the photo, see `fusion.fuse_masks`.
        vlm: classifies the crops.
        photo: the photo; the result has the size of its `pixels`.
        vocabulary: the classes.
        options: state the granularity; None chooses it automatically.
        stages: runs and caches the slow stages.
        dense_model: as of `OVSegWithProposals`.
    """
    source = photo.key, masks.generator
    cells = stages.cached("Cutting cells", ("cells", *source), lambda _: cut_cells(masks.proposals))
    regions = stages.cached(
        "Reading regions",
        ("regions", *source, vlm.name),
        lambda report: vlm.embed_regions(masks.pixels, masks.proposals, report),
    )
    scores = score_regions(vlm, regions, vocabulary, stages)
    dense = class_texts.score_densely(dense_model, photo, vocabulary, stages) if dense_model else None
    with stages.timed("Fusing"):
        class_scores = scores.probabilities.T.cpu().numpy()
        value, chosen = options.granularity, {}
        if value is None:
            choice = choose_granularity(cells, class_scores)
            value, chosen = choice.value, {"granularity": choice}
        size, names = photo.pixels.shape[:2], vocabulary.names
        if dense_model and dense:
            result = fusion.fuse_masks(cells, class_scores, names, value, dense.probabilities, size)
            result = known.with_known(result, dense.odds, dense_model.dense_calibration, cells)
        else:
            result = fusion.fuse_masks(cells, class_scores, names, value, None, size)
            of_cells = fusion.paint(cells, class_scores, value, scores.odds.T.cpu().numpy())
            result = known.with_known_of_cells(result, of_cells, cells.index)
            result = replace(result, presence=known.presence(scores.odds, vlm.calibration))
    return replace(result, chosen=chosen)


def score_regions(
    vlm: VisionLanguageModel, regions: Tensor, vocabulary: Vocabulary, stages: Stages
) -> class_texts.ClassScores:
    """Compare mask proposals with the words of a vocabulary and with background words.

    Args:
        vlm: embeds the words.
        regions: embeddings of N mask proposals by the same model.
        vocabulary: C classes.
        stages: runs and caches the text stage.

    Returns:
        scores at N places, (C, N).
    """
    texts = class_texts.embed_vocabulary(vlm, vocabulary, stages)
    background = class_texts.embed_background(vlm, vocabulary, stages)
    logits = vlm.logits(regions, torch.cat([texts.embeddings, background])).T
    return class_texts.class_scores(logits, texts, vlm.calibration)
