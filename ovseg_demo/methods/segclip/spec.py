"""The methods of SegCLIP that people can choose."""

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.segclip.options import SegCLIPMiniOptions, SegCLIPOptions
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.runtime.shared_models import SharedModels


def _build_mini(models: SharedModels) -> Method:
    from ovseg_demo.methods.segclip.method import SegCLIP
    from ovseg_demo.methods.segclip.mini import load_encoder

    return SegCLIP(load_encoder(shared_mini_model(models), models.device))


def _segclip(method: str, title: str) -> MethodSpec:
    """A SegCLIP, a whole model in one file whose catalogue id is that of the method."""

    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.segclip.encoder import load_encoder
        from ovseg_demo.methods.segclip.method import SegCLIP

        return SegCLIP(load_encoder(method, models.device), READING_SIDE)

    summary = "No masks: patches gather to eight regions, as captions alone have taught, and words name the regions."
    return MethodSpec(method, f"SegCLIP · {title}", summary, (method,), build, SegCLIPOptions, READING_SIDE)


SEGCLIP = (_segclip("segclip", "as published"), _segclip("segclip-own", "trained by you"))

SEGCLIP_MINI = (
    MethodSpec(
        "segclip-mini",
        "SegCLIP · mini",
        "To see how SegCLIP works: eight regions form without masks or tags; the other mini models draw better maps.",
        (*MINI_CHECKPOINTS, "segclip-mini"),
        _build_mini,
        SegCLIPMiniOptions,
    ),
)
