"""The protocol of a method and what a request may set."""

from dataclasses import dataclass
from typing import Protocol

from ovseg_demo.errors import MethodError
from ovseg_demo.image import Photo
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Stages
from ovseg_demo.vocabulary import Vocabulary

PROPOSALS = ("fast", "balanced", "thorough")

RECIPES = ("code", "paper")

DECODER_STAGES = 3
"""Stages of SED's decoder, before each of which classes can be rejected."""


@dataclass(frozen=True)
class Options:
    """Settings of one request. A method ignores granularity and proposals where it does not use them; the others are
    refused, because who sets them wants other numbers.

    Attributes:
        granularity: 0 to 1, see `fusion.select_masks`; None chooses it for this photo and these words (`granularity`).
        proposals: how thoroughly masks are searched, one of PROPOSALS.
        ensemble: None names masks by CLIP alone, as OVSeg's demo does. From 0 to 1, OVSeg's evaluation instead: soft
            masks, and MaskFormer's own class probabilities A with CLIP's C as A^(1 - ensemble) C^ensemble.
        rejection: SED's early rejection (Xie et al. 2024, section 3.3): before each of its three stages, only the
            classes stay that are among the k best somewhere in the photo; k of each stage. None keeps all classes.
        keep_aspect: whether SED keeps the photo's aspect ratio; published, it sees every photo squashed to a square.
        seen: words that count as seen in training, for TagCLIP; a class counts when one of its words does. None stands
            for those that the model was trained with.
        trusty: whether TagCLIP weights its masks by the trusty map.
        recipe: "code" takes 0.1 off the mask probabilities of seen classes where TagCLIP's published code does;
            "paper" does not, as its paper says nothing of it.

    Raises MethodError for a value outside its range.
    """

    granularity: float | None = 0.8
    proposals: str = "balanced"
    ensemble: float | None = None
    rejection: tuple[int, int, int] | None = None
    keep_aspect: bool = False
    seen: tuple[str, ...] | None = None
    trusty: bool = True
    recipe: str = "code"

    def __post_init__(self) -> None:
        for name in ("granularity", "ensemble"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise MethodError(f"{name.capitalize()} must lie between 0 and 1; got {value}.")
        if self.proposals not in PROPOSALS:
            raise MethodError(f"Unknown proposal setting '{self.proposals}'; choose one of {', '.join(PROPOSALS)}.")
        if self.recipe not in RECIPES:
            raise MethodError(f"Unknown recipe '{self.recipe}'; choose one of {', '.join(RECIPES)}.")
        wanted = self.rejection
        if wanted is not None and not (len(wanted) == DECODER_STAGES and all(map(_counts, wanted))):
            told = ", ".join(map(str, wanted))
            raise MethodError(
                f"Early rejection takes whole numbers of at least 1, one for each of the three stages; got {told}."
            )


def _counts(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


class Method(Protocol):
    """Names every pixel of a photo.

    Inside, the work falls into an image stage (slow, cached by image content), a text stage (cached by word) and a
    fusion stage (fast, never cached), so that moving a slider or changing a word does not repeat the image stage.
    """

    def segment(self, photo: Photo, vocabulary: Vocabulary, options: Options, stages: Stages) -> Segmentation:
        """A label for every pixel of `photo`, at its working size. Raises Cancelled through `stages`."""
