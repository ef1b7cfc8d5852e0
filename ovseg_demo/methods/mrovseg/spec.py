"""The methods of MROVSeg that people can choose."""

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.mrovseg.options import MROVSegLargeOptions, MROVSegOptions
from ovseg_demo.runtime.shared_models import SharedModels


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


MROVSEG = (
    _own("mrovseg-own", "ViT-B/16", "clip-vit-b16", MROVSegOptions),
    _own("mrovseg-own-l", "ViT-L/14", "clip-vit-l14-336", MROVSegLargeOptions),
)
