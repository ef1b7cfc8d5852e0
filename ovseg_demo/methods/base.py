"""The protocol of a method and what a request may set."""

from dataclasses import dataclass
from typing import Protocol

from ovseg_demo.errors import MethodError
from ovseg_demo.image import Photo
from ovseg_demo.result import Segmentation
from ovseg_demo.stages import Stages
from ovseg_demo.vocabulary import Vocabulary

PROPOSALS = ("fast", "balanced", "thorough")


@dataclass(frozen=True)
class Options:
    """Settings of one request; a method ignores those it does not use.

    Attributes:
        granularity: 0 to 1, see `fusion.select`.
        proposals: how thoroughly masks are searched, one of PROPOSALS.

    Raises MethodError for a value outside its range.
    """

    granularity: float = 0.8
    proposals: str = "balanced"

    def __post_init__(self) -> None:
        if not 0 <= self.granularity <= 1:
            raise MethodError(f"Granularity must lie between 0 and 1; got {self.granularity}.")
        if self.proposals not in PROPOSALS:
            raise MethodError(f"Unknown proposal setting '{self.proposals}'; choose one of {', '.join(PROPOSALS)}.")


class Method(Protocol):
    """Names every pixel of a photo.

    Inside, the work falls into an image stage (slow, cached by image content), a text stage (cached by word) and a
    fusion stage (fast, never cached), so that moving a slider or changing a word does not repeat the image stage.
    """

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        """A label for every pixel of `photo`, at its working size. Raises Cancelled through `stages`."""
