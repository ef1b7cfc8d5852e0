"""What every method is: a specification that can be listed, and what it builds, which names every pixel of a photo."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ovseg_demo.image import WORKING_SIDE, Photo
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.shared_models import SharedModels
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary
from ovseg_demo.weights import catalogue


class Method(Protocol):
    """Names every pixel of a photo.

    Inside, the work falls into an image stage (slow, cached by image content), a text stage (cached by word) and a
    fusion stage (fast, never cached), so that moving a slider or changing a word does not repeat the image stage.
    """

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Any, stages: Stages) -> Segmentation:
        """A label for every pixel of a photo.

        Args:
            photo: what is segmented.
            vocabulary: the classes that may be drawn.
            options: an instance of the `options` of the method's specification.
            stages: runs and caches the slow parts; raises Cancelled when the person has asked to stop.

        Returns:
            a result of the size of the photo's pixels.
        """
        ...


@dataclass(frozen=True)
class MethodSpec:
    """One method that people can choose. Listing it loads no model.

    Attributes:
        id: the name in the API and on the command line.
        title: the name on the page; what stands before " · " names the family of methods.
        summary: one sentence on what it does.
        checkpoints: catalogue ids of the weights it needs.
        build: loads the method; slow. It takes the models that are shared with other methods from its argument.
        options: the options a request may set.
        longest_side: pixels of the longest side of the photos that the method reads. Demo and command line give results
            at `image.WORKING_SIDE` all the same; an evaluation asks for results of this size.
    """

    id: str
    title: str
    summary: str
    checkpoints: tuple[str, ...]
    build: Callable[[SharedModels], Method]
    options: type[MethodOptions] = MethodOptions
    longest_side: int = WORKING_SIDE

    @property
    def family(self) -> str:
        """The family of methods, as its title names it."""
        return self.title.split(" · ")[0]

    def missing(self) -> list[catalogue.Checkpoint]:
        """The weights that are not here; the method is available when there are none."""
        return [checkpoint for checkpoint in map(catalogue.get, self.checkpoints) if not checkpoint.present]
