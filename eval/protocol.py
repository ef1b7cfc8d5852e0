"""What the protocol of a benchmark asks of the options of methods."""

from collections.abc import Sequence
from typing import Any

from eval import datasets
from eval.datasets.base import Dataset, DatasetError
from ovseg_demo.methods import command_line
from ovseg_demo.methods.options import MethodOptions

_ENSEMBLE, _UNLABELLED = "ensemble", "unlabelled"
"""Names of options."""


def options_by_method(methods: Sequence[str], values: dict[str, Any], dataset: Dataset) -> dict[str, MethodOptions]:
    """The options of methods on a benchmark, by method id.

    A value that is not given is the method's default, with one exception: where the protocol labels every pixel, the
    option `unlabelled` is 0, because a pixel without a class could only be wrong. Where there is a background, what is
    left unlabelled counts as background, and the method decides how much that is. A benchmark whose background is asked
    for by words of its own, its rivals, labels every pixel.

    Args:
        methods: ids, at least one.
        values: the given values by the name of the option. An ensemble "published" becomes the weight of CLIP that
            OVSeg used on the benchmark.
        dataset: the benchmark.

    Raises:
        MethodError: for an option that none of the methods has, and for a value that does not fit.
        DatasetError: for a published weight on a benchmark without one.
    """
    options = command_line.options_by_method(methods, _with_published(values, dataset.name))
    if _UNLABELLED in values or (dataset.background is not None and not dataset.rivals):
        return options
    return {
        method: chosen.changed(unlabelled=0) if _UNLABELLED in chosen.declared() else chosen
        for method, chosen in options.items()
    }


def _with_published(values: dict[str, Any], dataset: str) -> dict[str, Any]:
    if values.get(_ENSEMBLE) != "published":
        return values
    if (known := datasets.DATASETS[dataset].ensemble) is None:
        raise DatasetError(f"OVSeg published no weight of CLIP for {dataset}; give --ensemble a number.")
    return {**values, _ENSEMBLE: known}
