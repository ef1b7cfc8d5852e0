"""No proposals: every place of the photo is named on its own, in a fraction of a second.

Outlines are softer than those of mask proposals, and small things are missed.
"""

from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts
from ovseg_demo.methods.base import Options
from ovseg_demo.models.base import DenseModel
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class MiniDense:
    """Names from the places of `reader`."""

    def __init__(self, reader: DenseModel) -> None:
        self._reader = reader

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        texts = class_texts.embed_vocabulary(self._reader, vocabulary, stages)
        places = class_texts.dense_probabilities(self._reader, photo, texts, stages)
        with stages.timed("Naming pixels"):
            return Segmentation.from_scores(vocabulary.names, places, photo.pixels.shape[:2])
