"""Dense CLIP as a method of the demo: every patch of a photo is compared with the words, without any training.

NACLIP (Hajimiri et al., "Pay Attention to Your Neighbours", WACV 2025), and by the strategy of the last block also
MaskCLIP, SCLIP and plain CLIP.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo import image
from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.dense.model import DenseClipEncoder, DenseFeatures
from ovseg_demo.methods.dense.options import DenseClipOptions
from ovseg_demo.methods.dense.ranking import Ranking, refined_ranking
from ovseg_demo.methods.dense.scores import PixelScores
from ovseg_demo.methods.dense.votes import vote
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.proposals.base import ProposalGenerator
from ovseg_demo.proposals.cells import Cells, cut_cells
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary

_ODDS_STEP = 8  # half a patch of a photo at the published size


class DenseClip:
    """Segments by the cosines of CLIP's patches with words.

    Args:
        encoder: embeds photos and words.
        generator: finds the masks for the option `masks`.
        longest: longest side, in pixels, of the photos that the encoder is given.
    """

    def __init__(
        self, encoder: DenseClipEncoder, generator: ProposalGenerator, longest: int = image.WORKING_SIDE
    ) -> None:
        self._encoder, self._generator, self._longest = encoder, generator, longest

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: DenseClipOptions, stages: Stages) -> Segmentation:
        """Segment a photo.

        A pixel's confidence is the probability of its class, renormalised over the classes.
        """
        encoder, pixels = self._encoder, photo.pixels_for(self._longest)
        height, width = photo.pixels.shape[:2]
        layout = WindowLayout.of(pixels.shape[:2], options.short_side, options.stride, encoder.patch)
        read = (photo.key, encoder.name, options.short_side, options.stride)
        tokens = stages.cached(
            "Reading the photo",
            ("window tokens", *read),
            lambda report: encoder.read_windows(pixels, layout, report),
        )
        features = stages.cached(
            "Relating patches",
            ("dense features", *read, options.strategy),
            lambda _: encoder.features(tokens, options.strategy),
        )
        texts = class_texts.embed_vocabulary(encoder, vocabulary, stages, encoder.slow_texts)
        background = class_texts.embed_background(encoder, vocabulary, stages, encoder.slow_texts)
        scores = PixelScores(features, texts, (height, width))
        cells = self._cells(photo, stages) if options.masks else None
        ranking: Ranking | None = None
        if options.pamr:
            ranking = stages.cached(
                "Refining outlines",
                ("refined ranking", *read, options.strategy, tuple(vocabulary.words())),
                lambda report: refined_ranking(scores, self._guide(photo, layout).to(scores.device), report),
            )
        with stages.timed("Naming pixels"), torch.inference_mode():
            if ranking is None:
                result = Segmentation.from_scores(vocabulary.names, scores, (height, width))
            else:
                result = ranking.segmentation(vocabulary.names)
            if cells is not None:
                result = vote(result, scores, cells)
            return known.with_known(result, _odds(features, texts, background, (height, width)), cells=cells)

    def _cells(self, photo: Photo, stages: Stages) -> Cells:
        """The cut of the photo by its masks; the keys are those of OVSeg, which shares them."""
        source = photo.key, self._generator.name
        proposals = stages.cached(
            "Finding masks", ("masks", *source), lambda report: self._generator.propose(photo.pixels, report)
        )
        return stages.cached("Cutting cells", ("cells", *source), lambda _: cut_cells(proposals))

    def _guide(self, photo: Photo, layout: WindowLayout) -> Tensor:
        """The pixels by which PAMR compares colours, (3, H, W): those of the resized photo, enlarged, as published."""
        resized = self._encoder.preprocess(photo.pixels_for(self._longest), layout)
        return F.interpolate(resized[None], photo.pixels.shape[:2], mode="bilinear", align_corners=False)[0]


def _odds(
    features: DenseFeatures, texts: class_texts.ClassTextEmbeddings, background: Tensor, size: tuple[int, int]
) -> Tensor:
    """The log-odds of the classes against background words, float32 (C, h, w), at every eighth pixel of `size`."""
    grid = max(1, size[0] // _ODDS_STEP), max(1, size[1] // _ODDS_STEP)
    embeddings = torch.cat([texts.embeddings, background])
    words = class_texts.ClassTextEmbeddings(embeddings, torch.arange(len(embeddings)))
    logits = PixelScores(features, words, grid).at_rows(slice(None)).log()
    return class_texts.class_scores(logits, texts, UNCALIBRATED).odds
