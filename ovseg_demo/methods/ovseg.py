"""OVSeg: mask proposals, each named by a vision-language model from its masked crop.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), in the form of its public
demo: class scores of a region are a softmax over the vocabulary alone, and granularity decides which masks paint.
"""

from collections.abc import Mapping
from dataclasses import replace

from ovseg_demo import fusion
from ovseg_demo import granularity as automatic
from ovseg_demo.image import Photo
from ovseg_demo.methods import words
from ovseg_demo.methods.base import Options
from ovseg_demo.proposals.base import MaskProposals, ProposalMaker
from ovseg_demo.result import Segmentation
from ovseg_demo.stages import Stages
from ovseg_demo.vlm.base import PlaceReader, VisionLanguageModel
from ovseg_demo.vocabulary import Vocabulary


class OVSeg:
    """Proposals from one of `makers`, by setting; names from `vlm`, shared with `places` where that is given."""

    def __init__(
        self, makers: Mapping[str, ProposalMaker], vlm: VisionLanguageModel, places: PlaceReader | None = None
    ) -> None:
        self._makers = makers
        self._vlm = vlm
        self._places = places

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        maker = self._makers[options.proposals]
        proposals = stages.heavy(
            "Finding masks", ("masks", photo.key, maker.name), lambda report: maker.propose(photo.pixels, report)
        )
        return paint(proposals, maker.name, self._vlm, self._places, photo, vocabulary, options, stages)


def paint(
    proposals: MaskProposals,
    maker: str,
    vlm: VisionLanguageModel,
    places: PlaceReader | None,
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
    cells = stages.heavy("Cutting cells", ("cells", photo.key, maker), lambda _: fusion.cut(proposals))
    regions = stages.heavy(
        "Reading regions",
        ("regions", photo.key, maker, vlm.name),
        lambda report: vlm.embed_regions(photo.pixels, proposals, report),
    )
    texts = words.embed(vlm, vocabulary, stages)
    class_scores = texts.of_classes(vlm.logits(regions, texts.texts)).softmax(1).cpu().numpy()
    below = places and words.place_probabilities(places, photo, texts, stages)
    with stages.timed("Fusing"):
        value, reason = options.granularity, ""
        if value is None:
            choice = automatic.choose(cells, class_scores, len(vocabulary))
            value, reason = choice.value, choice.reason
        result = fusion.fuse(cells, class_scores, vocabulary.names, value, below)
    return replace(result, granularity=value, granularity_reason=reason)
