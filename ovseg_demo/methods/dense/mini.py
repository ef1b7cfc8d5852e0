"""Dense segmentation with the mini model, without mask proposals, in a fraction of a second.

Outlines are softer than with mask proposals, and small objects are missed.
"""

from ovseg_demo.image import Photo
from ovseg_demo.methods import class_texts, known
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.models.base import DenseModel
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class MiniDense:
    """Segments by the dense logits of a model.

    Args:
        model: embeds photos and words.
    """

    def __init__(self, model: DenseModel) -> None:
        self._model = model

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: MethodOptions, stages: Stages) -> Segmentation:
        """The class with the highest probability at every pixel; see `base.Method`."""
        scores = class_texts.score_densely(self._model, photo, vocabulary, stages)
        with stages.timed("Naming pixels"):
            result = Segmentation.from_scores(vocabulary.names, scores.probabilities, photo.pixels.shape[:2])
            return known.with_known(result, scores.odds, self._model.dense_calibration)
