"""The dense methods that people can choose."""

from collections.abc import Callable

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.dense.options import DenseClipOptions
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.proposals.sam.shared import shared_sam_generators
from ovseg_demo.runtime.shared_models import SharedModels


def _build_mini_dense(models: SharedModels) -> Method:
    from ovseg_demo.methods.dense.mini import MiniDense

    return MiniDense(shared_mini_model(models))


def _build_dense_clip(architecture: str, weights: str) -> Callable[[SharedModels], Method]:
    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.dense.method import DenseClip
        from ovseg_demo.methods.dense.model import load_dense_clip

        encoder = load_dense_clip(architecture, weights, models.device)
        return DenseClip(encoder, shared_sam_generators(models)["balanced"], READING_SIDE)

    return build


def _dense_clip(method: str, title: str, architecture: str, weights: str) -> MethodSpec:
    return MethodSpec(
        method,
        f"Dense CLIP · {title}",
        f"OpenAI's CLIP {title} alone, without training or masks: its patches are compared with the words (NACLIP).",
        ("mobile-sam", weights),
        _build_dense_clip(architecture, weights),
        DenseClipOptions,
        READING_SIDE,
    )


DENSE = (
    MethodSpec(
        "mini-dense",
        "Mini · dense",
        "The bundled mini model without masks: every place is named on its own, in a fraction of a second.",
        MINI_CHECKPOINTS,
        _build_mini_dense,
    ),
)

DENSE_CLIP = (
    _dense_clip("dense-clip-vitb16", "ViT-B/16", "ViT-B-16-quickgelu", "clip-vit-b16"),
    _dense_clip("dense-clip-vitl14", "ViT-L/14", "ViT-L-14-quickgelu", "clip-vit-l14"),
)
