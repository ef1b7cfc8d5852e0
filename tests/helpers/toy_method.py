"""A method in one file: all that a new method and its options need, but for its line in the registry."""

from typing import Annotated

import numpy as np
from pydantic import Field

from ovseg_demo.image import Photo
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import Checkbox, MethodOptions, Slider
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary


class ToyOptions(MethodOptions):
    """Options of the toy.

    Attributes:
        border: pixels at the left that stay unlabelled.
        inverted: whether the last class is drawn instead of the first.
    """

    border: Annotated[int, Slider(step=1)] = Field(
        2, ge=0, le=9, title="Border", description="Pixels at the left that stay unlabelled, 100 % of them."
    )
    inverted: Annotated[bool, Checkbox()] = Field(
        False, title="Inverted", description="Draw the last word instead of the first."
    )


class Toy:
    """Draws one class over the whole photo."""

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: ToyOptions, stages: Stages) -> Segmentation:
        with stages.timed("Playing"):
            size = photo.pixels.shape[:2]
            labels = np.full(size, len(vocabulary) - 1 if options.inverted else 0, np.int32)
            labels[:, : options.border] = -1
            scores = (labels >= 0).astype(np.float32)
        return Segmentation(vocabulary.names, labels, scores, labels.clip(0)[None], scores[None])


TOY = MethodSpec("toy", "Toy · one file", "Draws one word over all.", (), lambda models: Toy(), ToyOptions)
