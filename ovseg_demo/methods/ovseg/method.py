"""OVSeg: mask proposals, each named by a vision-language model from its masked crop.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), in the form of its public
demo: class scores of a region are a softmax over the vocabulary alone, and granularity decides which masks paint.
"""

from collections.abc import Mapping
from dataclasses import replace

from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.base import Options
from ovseg_demo.methods.ovseg import fusion
from ovseg_demo.methods.ovseg import granularity as automatic
from ovseg_demo.models.base import DenseModel, VisionLanguageModel
from ovseg_demo.proposals.base import MaskProposals, ProposalGenerator
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class OVSegWithProposals:
    """Proposals from one of `makers`, by setting; names from `vlm`, shared with `places` where that is given."""

    def __init__(
        self, makers: Mapping[str, ProposalGenerator], vlm: VisionLanguageModel, places: DenseModel | None = None
    ) -> None:
        self._makers = makers
        self._vlm = vlm
        self._places = places

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        maker = self._makers[options.proposals]
        proposals = stages.cached(
            "Finding masks", ("masks", photo.key, maker.name), lambda report: maker.propose(photo.pixels, report)
        )
        return name_masks(proposals, maker.name, self._vlm, self._places, photo, vocabulary, options, stages)


def name_masks(
    proposals: MaskProposals,
    maker: str,
    vlm: VisionLanguageModel,
    places: DenseModel | None,
    photo: Photo,
    vocabulary: Vocabulary,
    options: Options,
    stages: Stages,
) -> Segmentation:
    """Name the masks of a photo and paint those that granularity selects.

    Args:
        proposals: masks of the photo.
        maker: names who made them, in caches.
        vlm: reads the masks.
        places: as of OVSeg.
    """
    cells = stages.cached("Cutting cells", ("cells", photo.key, maker), lambda _: fusion.cut_cells(proposals))
    regions = stages.cached(
        "Reading regions",
        ("regions", photo.key, maker, vlm.name),
        lambda report: vlm.embed_regions(photo.pixels, proposals, report),
    )
    texts = class_texts.embed_vocabulary(vlm, vocabulary, stages)
    class_scores = texts.of_classes(vlm.logits(regions, texts.texts)).softmax(1).cpu().numpy()
    below = places and class_texts.dense_probabilities(places, photo, texts, stages)
    with stages.timed("Fusing"):
        value, reason = options.granularity, ""
        if value is None:
            choice = automatic.choose_granularity(cells, class_scores, len(vocabulary))
            value, reason = choice.value, choice.reason
        result = fusion.fuse_masks(cells, class_scores, vocabulary.names, value, below)
    return replace(result, granularity=value, granularity_reason=reason)
