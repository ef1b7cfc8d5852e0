"""The registry: every method by id, what weights it needs, how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ovseg_demo.errors import MethodError
from ovseg_demo.methods.base import PROPOSALS, Method
from ovseg_demo.proposals.base import ProposalGenerator
from ovseg_demo.weights import catalogue

if TYPE_CHECKING:
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier
    from ovseg_demo.models.mini.model import MiniModel


@dataclass(frozen=True)
class MethodSpec:
    """One method that people can choose.

    Attributes:
        id: the name in the API and on the command line.
        title: the name on the page.
        summary: one sentence on what it does.
        checkpoints: catalogue ids of the weights it needs.
        uses: names of the Options that change something.
        build: makes it on a device; slow.
    """

    id: str
    title: str
    summary: str
    checkpoints: tuple[str, ...]
    uses: tuple[str, ...]
    build: Callable[[str], Method]

    def missing(self) -> list[catalogue.Checkpoint]:
        """The weights that are not here; the method is available when there are none."""
        return [entry for entry in map(catalogue.get, self.checkpoints) if not entry.present]


# Models are imported when they are built: starting the page or listing methods must not wait for them.


@cache
def _sam(device: str) -> dict[str, ProposalGenerator]:
    """MobileSAM in every setting. One copy in memory, shared by every method that uses it."""
    from ovseg_demo.proposals.sam import mobile_sam
    from ovseg_demo.proposals.sam.mask_generator import SamMaskGenerator

    model = mobile_sam.load_mobile_sam(device=device)
    return {setting: SamMaskGenerator(model, setting) for setting in PROPOSALS}


@cache
def _mini(device: str) -> "MiniModel":
    from ovseg_demo.models.mini.model import MiniModel

    return MiniModel(device=device)


def _ovseg_mini(device: str) -> Method:
    from ovseg_demo.methods.ovseg.method import OVSegWithProposals

    vlm = _mini(device)
    return OVSegWithProposals(_sam(device), vlm, vlm)


def _mini_dense(device: str) -> Method:
    from ovseg_demo.methods.dense.mini import MiniDense

    return MiniDense(_mini(device))


def _sed_mini(device: str) -> Method:
    from ovseg_demo.methods.sed import mini

    return mini.load_sed_mini(_mini(device), device)


def _tagclip_mini(device: str) -> Method:
    from ovseg_demo.methods.tagclip import mini

    return mini.load_tagclip_mini(_mini(device), device)


@cache
def _clip(architecture: str, checkpoint_id: str, device: str) -> "ClipRegionClassifier":
    """One copy in memory, shared by every method that uses it."""
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

    return ClipRegionClassifier(architecture, checkpoint_id, device)


def _ovseg_clip(architecture: str, checkpoint_id: str) -> Callable[[str], Method]:
    def build(device: str) -> Method:
        from ovseg_demo.methods.ovseg.method import OVSegWithProposals

        return OVSegWithProposals(_sam(device), _clip(architecture, checkpoint_id, device))

    return build


def _ovseg_maskformer(checkpoint_id: str) -> Callable[[str], Method]:
    def build(device: str) -> Method:
        from ovseg_demo.methods.ovseg import maskformer

        return maskformer.load_ovseg_maskformer(
            checkpoint_id, device, lambda architecture: _clip(architecture, checkpoint_id, device)
        )

    return build


def _sed(checkpoint_id: str) -> Callable[[str], Method]:
    def build(device: str) -> Method:
        from ovseg_demo.methods.sed import loading

        return loading.load_sed(checkpoint_id, device)

    return build


def _tagclip(checkpoint_id: str) -> Callable[[str], Method]:
    def build(device: str) -> Method:
        from ovseg_demo.methods.tagclip import loading

        return loading.load_tagclip(checkpoint_id, device)

    return build


_MINI = ("mini-image", "mini-text", "mini-anchors", "mini-heads")
_B16, _L14 = "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"
_SAM = ("granularity", "proposals")
_MASKFORMER = ("granularity", "ensemble")
_SED = ("rejection", "keep_aspect")
_ZEGCLIP = ("seen", "recipe")
_TAGCLIP = (*_ZEGCLIP, "trusty")


def _sam_entry(method: str, clip: str, told: str, weights: str, build: Callable[[str], Method]) -> MethodSpec:
    return MethodSpec(
        method, f"OVSeg · {clip}", f"MobileSAM masks, named by {told}.", ("mobile-sam", weights), _SAM, build
    )


def _maskformer_entry(method: str, models: str, told: str, weights: str) -> MethodSpec:
    summary = f"MaskFormer's masks, named by {told}."
    build = _ovseg_maskformer(weights)
    return MethodSpec(method, f"OVSeg-MaskFormer · {models}", summary, (weights,), _MASKFORMER, build)


def _sed_entry(method: str, model: str, told: str) -> MethodSpec:
    """A whole model in one file, which has the method's id."""
    summary = f"No masks: a decoder draws outlines from the cost maps of {told}."
    return MethodSpec(method, f"SED · {model}", summary, (method,), _SED, _sed(method))


def _zegclip_entry(method: str, told: str, uses: tuple[str, ...] = ()) -> MethodSpec:
    """As `_sed_entry`; only the inductive models treat seen words otherwise."""
    summary = "No masks: words find their regions by attention in a CLIP ViT-B/16 with learned prompts."
    return MethodSpec(method, f"ZegCLIP · {told}", summary, (method,), uses, _tagclip(method))


_ENTRIES = (
    MethodSpec(
        "ovseg-sam-mini",
        "OVSeg · mini",
        "MobileSAM masks, named by the bundled mini model. Reads English; needs no network.",
        ("mobile-sam", *_MINI),
        _SAM,
        _ovseg_mini,
    ),
    MethodSpec(
        "mini-dense",
        "Mini · dense",
        "The bundled mini model without masks: every place is named on its own, in a fraction of a second.",
        _MINI,
        (),
        _mini_dense,
    ),
    MethodSpec(
        "sed-mini",
        "SED · mini",
        "SED's decoder on what the bundled mini model says of places at three sizes. Reads English; needs no network.",
        (*_MINI, "sed-mini"),
        ("rejection",),
        _sed_mini,
    ),
    MethodSpec(
        "tagclip-mini",
        "TagCLIP · mini",
        "TagCLIP's decoder on the bundled mini model, taught 15 kinds of things: its trusty map shows what looks new.",
        (*_MINI, "tagclip-mini"),
        ("seen", "trusty"),
        _tagclip_mini,
    ),
    _sam_entry(
        "ovseg-sam-vitb16",
        "CLIP ViT-B/16",
        "OpenAI's CLIP ViT-B/16",
        "clip-vit-b16",
        _ovseg_clip(_B16, "clip-vit-b16"),
    ),
    _sam_entry(
        "ovseg-sam-vitl14-openai",
        "CLIP ViT-L/14",
        "OpenAI's CLIP ViT-L/14",
        "clip-vit-l14",
        _ovseg_clip(_L14, "clip-vit-l14"),
    ),
    _sam_entry(
        "ovseg-sam-vitb16-adapted",
        "adapted CLIP ViT-B/16",
        "OVSeg's CLIP ViT-B/16, fine-tuned on masked crops",
        "ovseg-clip-vit-b16",
        _ovseg_clip(_B16, "ovseg-clip-vit-b16"),
    ),
    _sam_entry(
        "ovseg-sam-vitl14",
        "adapted CLIP ViT-L/14",
        "OVSeg's CLIP ViT-L/14, fine-tuned on masked crops",
        "ovseg-clip-vit-l14",
        _ovseg_clip(_L14, "ovseg-clip-vit-l14"),
    ),
    _sam_entry(
        "ovseg-sam-vitb16-prompts",
        "adapted CLIP ViT-B/16 with mask prompts",
        "the CLIP ViT-B/16 of OVSeg's published model, with mask prompts",
        "ovseg-r101c-vitb16",
        _ovseg_clip(_B16, "ovseg-r101c-vitb16"),
    ),
    _sam_entry(
        "ovseg-sam-vitl14-prompts",
        "adapted CLIP ViT-L/14 with mask prompts",
        "the CLIP ViT-L/14 of OVSeg's published model, with mask prompts",
        "ovseg-swinb-vitl14",
        _ovseg_clip(_L14, "ovseg-swinb-vitl14"),
    ),
    _maskformer_entry(
        "ovseg-maskformer-r101c",
        "R101c, ViT-B/16",
        "its CLIP ViT-B/16 with mask prompts",
        "ovseg-r101c-vitb16",
    ),
    _maskformer_entry(
        "ovseg-maskformer-swinb",
        "Swin-B, ViT-L/14",
        "its CLIP ViT-L/14 with mask prompts",
        "ovseg-swinb-vitl14",
    ),
    _maskformer_entry(
        "ovseg-maskformer-swinb-mpt",
        "Swin-B, ViT-L/14, prompts only",
        "OpenAI's CLIP ViT-L/14 with trained mask prompts",
        "ovseg-swinb-vitl14-mpt",
    ),
    _maskformer_entry("ovseg-maskformer-own", "trained by you", "a CLIP with mask prompts, both your own", "ovseg-own"),
    _sed_entry("sed-convnext-b", "ConvNeXt-B", "a hierarchical CLIP, ConvNeXt-B"),
    _sed_entry("sed-convnext-l", "ConvNeXt-L", "a hierarchical CLIP, ConvNeXt-L"),
    _sed_entry("sed-own", "trained by you", "a hierarchical CLIP, both your own"),
    MethodSpec(
        "tagclip-own",
        "TagCLIP · trained by you",
        "Words find their regions by attention; a trusty map tells which regions look new to the model.",
        ("tagclip-own",),
        _TAGCLIP,
        _tagclip("tagclip-own"),
    ),
    _zegclip_entry("zegclip-voc", "VOC, 15 of 20 words seen", _ZEGCLIP),
    _zegclip_entry("zegclip-voc-transductive", "VOC, self-trained"),
    _zegclip_entry("zegclip-voc-supervised", "VOC, all words seen"),
    _zegclip_entry("zegclip-coco", "COCO-Stuff, 156 of 171 words seen", _ZEGCLIP),
    _zegclip_entry("zegclip-coco-transductive", "COCO-Stuff, self-trained"),
    _zegclip_entry("zegclip-coco-supervised", "COCO-Stuff, all words seen"),
)

REGISTRY: dict[str, MethodSpec] = {entry.id: entry for entry in _ENTRIES}
DEFAULT = _ENTRIES[0].id


def get(method_id: str) -> MethodSpec:
    """The entry of an id. Raises MethodError for an unknown one."""
    try:
        return REGISTRY[method_id]
    except KeyError:
        raise MethodError(f"Unknown method '{method_id}'; known: {', '.join(REGISTRY)}.") from None
