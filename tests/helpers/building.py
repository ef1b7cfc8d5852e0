"""Methods built for a test, with models of their own."""

from typing import NoReturn

from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.runtime.model_store import ModelStore
from ovseg_demo.runtime.shared_models import SharedModels


def built(spec: MethodSpec, device: str = "cpu") -> Method:
    """The method of a specification, which shares no model with other tests."""
    return spec.build(SharedModels(device, ModelStore()))


def never_built(models: SharedModels) -> NoReturn:
    """The `build` of a specification whose method a test never needs."""
    raise AssertionError("this method is not built")
