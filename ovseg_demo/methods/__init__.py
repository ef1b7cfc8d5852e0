"""The registry: every method by id, what weights it needs, how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ovseg_demo import checkpoints
from ovseg_demo.errors import MethodError
from ovseg_demo.methods.base import PROPOSALS, Method
from ovseg_demo.proposals.base import ProposalMaker

if TYPE_CHECKING:
    from ovseg_demo.vlm.mini import MiniVLM


@dataclass(frozen=True)
class MethodEntry:
    """One method that people can choose.

    Attributes:
        id: the name in the API and on the command line.
        title: the name on the page.
        summary: one sentence on what it does.
        checkpoints: catalogue ids of the weights it needs.
        uses_masks: whether it paints mask proposals, which granularity and the search setting choose.
        build: makes it on a device; slow.
    """

    id: str
    title: str
    summary: str
    checkpoints: tuple[str, ...]
    uses_masks: bool
    build: Callable[[str], Method]

    def missing(self) -> list[checkpoints.Checkpoint]:
        """The weights that are not here; the method is available when there are none."""
        return [entry for entry in map(checkpoints.get, self.checkpoints) if not entry.present]


# Models are imported when they are built: starting the page or listing methods must not wait for them.


@cache
def _sam(device: str) -> dict[str, ProposalMaker]:
    """MobileSAM in every setting. One copy in memory, shared by every method that uses it."""
    from ovseg_demo.proposals import mobile_sam
    from ovseg_demo.proposals.sam import SamProposals

    model = mobile_sam.load(device=device)
    return {setting: SamProposals(model, setting) for setting in PROPOSALS}


@cache
def _mini(device: str) -> "MiniVLM":
    from ovseg_demo.vlm.mini import MiniVLM

    return MiniVLM(device=device)


def _ovseg_mini(device: str) -> Method:
    from ovseg_demo.methods.ovseg import OVSeg

    vlm = _mini(device)
    return OVSeg(_sam(device), vlm, vlm)


def _mini_dense(device: str) -> Method:
    from ovseg_demo.methods.mini_dense import MiniDense

    return MiniDense(_mini(device))


def _ovseg_clip(architecture: str, checkpoint_id: str) -> Callable[[str], Method]:
    def build(device: str) -> Method:
        from ovseg_demo.methods.ovseg import OVSeg
        from ovseg_demo.vlm.open_clip import OpenClipVLM

        return OVSeg(_sam(device), OpenClipVLM(architecture, checkpoint_id, device))

    return build


_MINI = ("mini-image", "mini-text", "mini-anchors", "mini-heads")

_ENTRIES = (
    MethodEntry(
        "ovseg-sam-mini",
        "OVSeg · mini",
        "MobileSAM masks, named by the bundled mini model. Reads English; needs no network.",
        ("mobile-sam", *_MINI),
        True,
        _ovseg_mini,
    ),
    MethodEntry(
        "mini-dense",
        "Mini · dense",
        "The bundled mini model without masks: every place is named on its own, in a fraction of a second.",
        _MINI,
        False,
        _mini_dense,
    ),
    MethodEntry(
        "ovseg-sam-vitb16",
        "OVSeg · CLIP ViT-B/16",
        "MobileSAM masks, named by OpenAI's CLIP ViT-B/16.",
        ("mobile-sam", "clip-vit-b16"),
        True,
        _ovseg_clip("ViT-B-16-quickgelu", "clip-vit-b16"),
    ),
    MethodEntry(
        "ovseg-sam-vitl14",
        "OVSeg · adapted CLIP ViT-L/14",
        "MobileSAM masks, named by OVSeg's CLIP ViT-L/14, fine-tuned on masked crops.",
        ("mobile-sam", "ovseg-clip-vit-l14"),
        True,
        _ovseg_clip("ViT-L-14-quickgelu", "ovseg-clip-vit-l14"),
    ),
)

REGISTRY: dict[str, MethodEntry] = {entry.id: entry for entry in _ENTRIES}
DEFAULT = _ENTRIES[0].id


def get(method_id: str) -> MethodEntry:
    """The entry of an id. Raises MethodError for an unknown one."""
    try:
        return REGISTRY[method_id]
    except KeyError:
        raise MethodError(f"Unknown method '{method_id}'; known: {', '.join(REGISTRY)}.") from None
