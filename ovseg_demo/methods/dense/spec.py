"""The dense methods that people can choose."""

from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.runtime.shared_models import SharedModels


def _build_mini_dense(models: SharedModels) -> Method:
    from ovseg_demo.methods.dense.mini import MiniDense

    return MiniDense(shared_mini_model(models))


DENSE = (
    MethodSpec(
        "mini-dense",
        "Mini · dense",
        "The bundled mini model without masks: every place is named on its own, in a fraction of a second.",
        MINI_CHECKPOINTS,
        _build_mini_dense,
    ),
)
