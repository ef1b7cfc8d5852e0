"""The methods of MROVSeg that people can choose."""

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.mrovseg.options import MROVSegLargeOptions, MROVSegOptions
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.runtime.shared_models import SharedModels


def _build_mini(models: SharedModels) -> Method:
    from ovseg_demo.methods.mrovseg.mini import load_mrovseg_mini

    return load_mrovseg_mini(shared_mini_model(models), models.device)


def _own(method: str, title: str, clip: str, options: type[MROVSegOptions]) -> MethodSpec:
    """A model trained here, whose catalogue id is that of the method, on a CLIP of the catalogue."""

    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.mrovseg.loading import load_mrovseg

        return load_mrovseg(method, clip, models.device)

    summary = (
        "Masks from CLIP's view of the whole photo and of its slices, so that small things count; words name them."
    )
    return MethodSpec(
        method, f"MROVSeg · {title}, trained by you", summary, (method, clip), build, options, READING_SIDE
    )


MROVSEG_MINI = (
    MethodSpec(
        "mrovseg-mini",
        "MROVSeg · mini",
        "The bundled mini model on the whole photo and on its slices, fused where each is right. Needs no network.",
        (*MINI_CHECKPOINTS, "mrovseg-mini"),
        _build_mini,
    ),
)

MROVSEG = (
    _own("mrovseg-own", "ViT-B/16", "clip-vit-b16", MROVSegOptions),
    _own("mrovseg-own-l", "ViT-L/14", "clip-vit-l14-336", MROVSegLargeOptions),
)
