"""OVSeg: mask proposals, each named by a vision-language model from its masked crop.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), in the form of its public
demo: class scores of a region are a softmax over the vocabulary alone, and granularity decides which masks paint.
"""

from collections.abc import Mapping

import torch

from ovseg_demo import fusion
from ovseg_demo.image import Photo
from ovseg_demo.methods.base import Options
from ovseg_demo.proposals.base import ProposalMaker
from ovseg_demo.result import Segmentation
from ovseg_demo.stages import Stages
from ovseg_demo.vlm.base import VisionLanguageModel
from ovseg_demo.vocabulary import Vocabulary


class OVSeg:
    """Proposals from one of `makers`, by setting; names from `vlm`."""

    def __init__(self, makers: Mapping[str, ProposalMaker], vlm: VisionLanguageModel) -> None:
        self._makers = makers
        self._vlm = vlm

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        maker, vlm = self._makers[options.proposals], self._vlm
        proposals = stages.heavy(
            "Finding masks", ("masks", photo.key, maker.name), lambda report: maker.propose(photo.pixels, report)
        )
        cells = stages.heavy("Cutting cells", ("cells", photo.key, maker.name), lambda _: fusion.cut(proposals))
        regions = stages.heavy(
            "Reading regions",
            ("regions", photo.key, maker.name, vlm.name),
            lambda report: vlm.embed_regions(photo.pixels, proposals, report),
        )
        class_scores = torch.softmax(self._class_logits(regions, vocabulary, stages), dim=1)
        with stages.timed("Fusing"):
            return fusion.fuse(cells, class_scores.cpu().numpy(), vocabulary.names, options.granularity)

    def _class_logits(self, regions: torch.Tensor, vocabulary: Vocabulary, stages: Stages) -> torch.Tensor:
        """Logits (N, C), or (N, 2) with the rival "others" behind a single class.

        A class scores as its best word. A single class needs a rival, without which its softmax would always be 1.
        """
        vlm = self._vlm
        owners, words = zip(*vocabulary.words(), strict=True)
        texts = stages.each(
            "Reading words",
            [("text", vlm.name, word) for word in words],
            # A row of a batch would keep the whole batch alive in the cache, hence the clones.
            lambda missing: [row.clone() for row in vlm.embed_texts([words[i] for i in missing])],
        )
        owner, rows = torch.tensor(owners), torch.stack(texts)
        if len(vocabulary) == 1:
            (rival,) = stages.each("Reading rivals", [("rival", vlm.name, words)], lambda _: [vlm.embed_rival(words)])
            owner = torch.cat([owner, torch.full((len(rival),), 1)])
            rows = torch.cat([rows, rival])
        logits = vlm.logits(regions, rows)
        best = logits.new_full((len(logits), int(owner.max()) + 1), -torch.inf)
        return best.scatter_reduce_(1, owner.to(logits.device).expand_as(logits), logits, "amax")
