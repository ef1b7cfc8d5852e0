"""SegCLIP as a method of the demo: patches gather to regions on their own, and words name the regions.

Luo et al., "SegCLIP: Patch Aggregation with Learnable Centers for Open-Vocabulary Semantic Segmentation", ICML 2023.
"""

from dataclasses import replace

import torch

from ovseg_demo import image
from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.segclip.cells import cut_cells
from ovseg_demo.methods.segclip.encoder import RegionEncoder
from ovseg_demo.methods.segclip.evidence import formed_regions
from ovseg_demo.methods.segclip.options import RegionOptions
from ovseg_demo.methods.segclip.scores import name_cells, name_patches, region_scores
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class SegCLIP:
    """SegCLIP.

    Args:
        encoder: forms the regions of photos and embeds words.
        longest: longest side, in pixels, of the photos that the encoder is given.
    """

    def __init__(self, encoder: RegionEncoder, longest: int = image.WORKING_SIDE) -> None:
        self._encoder, self._longest = encoder, longest

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: RegionOptions, stages: Stages) -> Segmentation:
        """Segment a photo.

        A pixel's confidence is the score of its class, with which the background threshold is compared. A vocabulary
        of one class, whose probability would always be 1, competes with background words.
        """
        encoder, size = self._encoder, photo.pixels.shape[:2]
        pixels = photo.pixels_for(self._longest)
        layout = encoder.layout(pixels.shape[:2], options)
        read = (photo.key, encoder.name, layout)
        regions = stages.cached(
            "Reading the photo", ("regions", *read), lambda report: encoder.read_windows(pixels, layout, report)
        )
        cells = stages.cached("Placing regions", ("region cells", *read), lambda _: cut_cells(regions, size))
        texts = class_texts.embed_vocabulary(encoder, vocabulary, stages)
        if len(vocabulary) == 1:
            texts = texts.with_rivals(class_texts.embed_background(encoder, vocabulary, stages))
        with stages.timed("Naming pixels"), torch.inference_mode():
            scores = region_scores(regions, texts, encoder.scale, options.image_prior)
            if options.recipe == "code":
                result = name_cells(scores, cells, vocabulary.names, options.background)
            else:
                result = name_patches(scores, regions, vocabulary.names, options.background, size)
            return replace(result, evidence=(formed_regions(scores, cells, vocabulary.names),))
