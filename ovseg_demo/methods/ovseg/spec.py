"""The methods of OVSeg that people can choose, and their options."""

from collections.abc import Callable

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.ovseg.options import MaskFormerOptions, SamOptions
from ovseg_demo.models.clip.shared import shared_region_classifier
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.proposals.sam.shared import shared_sam_generators
from ovseg_demo.runtime.shared_models import SharedModels

_B16, _L14 = "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"


def _build_mini(models: SharedModels) -> Method:
    from ovseg_demo.methods.ovseg.method import OVSegWithProposals

    mini = shared_mini_model(models)
    return OVSegWithProposals(shared_sam_generators(models), mini, mini)


def _build_with_clip(architecture: str, weights: str) -> Callable[[SharedModels], Method]:
    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.ovseg.method import OVSegWithProposals

        return OVSegWithProposals(
            shared_sam_generators(models), shared_region_classifier(models, architecture, weights)
        )

    return build


def _build_maskformer(weights: str) -> Callable[[SharedModels], Method]:
    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.ovseg.maskformer import load_ovseg_maskformer

        return load_ovseg_maskformer(
            weights, models.device, lambda architecture: shared_region_classifier(models, architecture, weights)
        )

    return build


def _with_clip(method: str, clip: str, description: str, architecture: str, weights: str) -> MethodSpec:
    summary = f"MobileSAM masks, named by {description}."
    build = _build_with_clip(architecture, weights)
    return MethodSpec(method, f"OVSeg · {clip}", summary, ("mobile-sam", weights), build, SamOptions)


def _with_maskformer(method: str, models: str, description: str, weights: str) -> MethodSpec:
    summary = f"MaskFormer's masks, named by {description}."
    build = _build_maskformer(weights)
    return MethodSpec(
        method, f"OVSeg-MaskFormer · {models}", summary, (weights,), build, MaskFormerOptions, READING_SIDE
    )


OVSEG_MINI = (
    MethodSpec(
        "ovseg-sam-mini",
        "OVSeg · mini",
        "MobileSAM masks, named by the bundled mini model. Reads English; needs no network.",
        ("mobile-sam", *MINI_CHECKPOINTS),
        _build_mini,
        SamOptions,
    ),
)

OVSEG = (
    _with_clip("ovseg-sam-vitb16", "CLIP ViT-B/16", "OpenAI's CLIP ViT-B/16", _B16, "clip-vit-b16"),
    _with_clip("ovseg-sam-vitl14-openai", "CLIP ViT-L/14", "OpenAI's CLIP ViT-L/14", _L14, "clip-vit-l14"),
    _with_clip(
        "ovseg-sam-vitb16-adapted",
        "adapted CLIP ViT-B/16",
        "OVSeg's CLIP ViT-B/16, fine-tuned on masked crops",
        _B16,
        "ovseg-clip-vit-b16",
    ),
    _with_clip(
        "ovseg-sam-vitl14",
        "adapted CLIP ViT-L/14",
        "OVSeg's CLIP ViT-L/14, fine-tuned on masked crops",
        _L14,
        "ovseg-clip-vit-l14",
    ),
    _with_clip(
        "ovseg-sam-vitb16-prompts",
        "adapted CLIP ViT-B/16 with mask prompts",
        "the CLIP ViT-B/16 of OVSeg's published model, with mask prompts",
        _B16,
        "ovseg-r101c-vitb16",
    ),
    _with_clip(
        "ovseg-sam-vitl14-prompts",
        "adapted CLIP ViT-L/14 with mask prompts",
        "the CLIP ViT-L/14 of OVSeg's published model, with mask prompts",
        _L14,
        "ovseg-swinb-vitl14",
    ),
    _with_maskformer(
        "ovseg-maskformer-r101c", "R101c, ViT-B/16", "its CLIP ViT-B/16 with mask prompts", "ovseg-r101c-vitb16"
    ),
    _with_maskformer(
        "ovseg-maskformer-swinb", "Swin-B, ViT-L/14", "its CLIP ViT-L/14 with mask prompts", "ovseg-swinb-vitl14"
    ),
    _with_maskformer(
        "ovseg-maskformer-swinb-mpt",
        "Swin-B, ViT-L/14, prompts only",
        "OpenAI's CLIP ViT-L/14 with trained mask prompts",
        "ovseg-swinb-vitl14-mpt",
    ),
    _with_maskformer("ovseg-maskformer-own", "trained by you", "a CLIP with mask prompts, both your own", "ovseg-own"),
)
