"""The methods of SED that people can choose, and their options."""

from collections.abc import Callable

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.sed.options import SEDMiniOptions, SEDOptions
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.runtime.shared_models import SharedModels


def _build_mini(models: SharedModels) -> Method:
    from ovseg_demo.methods.sed.mini import load_sed_mini

    return load_sed_mini(shared_mini_model(models), models.device)


def _build(checkpoint_id: str) -> Callable[[SharedModels], Method]:
    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.sed.loading import load_sed

        return load_sed(checkpoint_id, models.device)

    return build


def _spec(method: str, model: str, clip: str) -> MethodSpec:
    """A whole model in one file, whose catalogue id is that of the method."""
    summary = f"No masks: a decoder draws outlines from the cost maps of {clip}."
    return MethodSpec(method, f"SED · {model}", summary, (method,), _build(method), SEDOptions, READING_SIDE)


SED_MINI = (
    MethodSpec(
        "sed-mini",
        "SED · mini",
        "SED's decoder on what the bundled mini model says of places at three sizes. Reads English; needs no network.",
        (*MINI_CHECKPOINTS, "sed-mini"),
        _build_mini,
        SEDMiniOptions,
    ),
)

SED = (
    _spec("sed-convnext-b", "ConvNeXt-B", "a hierarchical CLIP, ConvNeXt-B"),
    _spec("sed-convnext-l", "ConvNeXt-L", "a hierarchical CLIP, ConvNeXt-L"),
    _spec("sed-own", "trained by you", "a hierarchical CLIP, both your own"),
)
