"""What the protocol of a benchmark asks of the options of methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval import datasets
from eval.datasets.base import Dataset, DatasetError
from ovseg_demo.errors import MethodError
from ovseg_demo.methods import command_line, registry
from ovseg_demo.methods.options import MethodOptions, Option

PUBLISHED = "published"
"""In place of an option's value: the value that was published for the benchmark."""

SWEEP = "sweep"
"""In place of an option's value: every value of a grid, in one pass over the images."""

_STEP = 0.05
"""Between two values of the grid."""


@dataclass(frozen=True)
class Sweep:
    """The options of a method with many values of one of them.

    Attributes:
        option: the name of the option that is swept.
        values: its values, ascending.
        published: the value that was published for the benchmark, one of `values`; None without one.
        others: the options of the method, with any value of the option that is swept.
    """

    option: str
    values: tuple[float, ...]
    published: float | None
    others: MethodOptions

    def at(self, value: float) -> MethodOptions:
        """The options with one value of the option that is swept."""
        return self.others.changed(**{self.option: value})

    def given(self) -> dict[str, Any]:
        """The values of all options by name, ready for JSON; of the option that is swept, the list of its values."""
        return {**self.others.given(), self.option: list(self.values)}


def options_by_method(methods: Sequence[str], values: Mapping[str, Any], dataset: Dataset) -> dict[str, MethodOptions]:
    """The options of methods on a benchmark, by method id.

    A value that is not given is the method's default, with one exception: where the protocol labels every pixel, the
    thresholds of a method (`MethodOptions.thresholds`) are 0, because a pixel without a class could only be wrong.
    Where there is a background, what is left unlabelled counts as background, and the method decides how much that is.
    A benchmark whose background is asked for by words of its own, its rivals, labels every pixel.

    Args:
        methods: ids, at least one.
        values: the given values by the name of the option. PUBLISHED becomes the value that was published for the
            benchmark.
        dataset: the benchmark.

    Raises:
        MethodError: for an option that none of the methods has, and for a value that does not fit.
        DatasetError: for a published value on a benchmark without one.
    """
    options = command_line.options_by_method(methods, _with_published(values, dataset.name))
    if dataset.background is not None and not dataset.rivals:
        return options
    return {
        method: chosen.changed(**dict.fromkeys((chosen.thresholds & chosen.declared().keys()) - values.keys(), 0))
        for method, chosen in options.items()
    }


def sweep_by_method(methods: Sequence[str], values: Mapping[str, Any], dataset: Dataset) -> dict[str, Sweep]:
    """The sweeps of methods on a benchmark, by method id; empty where no option is swept.

    Any option that is a number between two limits can be swept: over a grid from one limit to the other, and the value
    that was published for the benchmark.

    Args:
        methods: as of `options_by_method`.
        values: as of `options_by_method`; the option that is swept has the value SWEEP.
        dataset: the benchmark.

    Raises:
        MethodError: when several options are swept, when a method lacks the one that is, and as `options_by_method`.
        DatasetError: as `options_by_method`.
    """
    published = datasets.DATASETS[dataset.name].published
    declared = {method: registry.get(method).options.declared() for method in methods}
    grids = {
        name: {method: _grid(options.get(name), published.get(name)) for method, options in declared.items()}
        for name, value in values.items()
        if value == SWEEP
    }
    swept = [name for name, grid_of in grids.items() if any(grid_of.values())]
    if not swept:
        return {}
    if len(swept) > 1:
        raise MethodError(f"Only one option can be swept at a time, not {' and '.join(swept)}.")
    option, grid_of = swept[0], grids[swept[0]]
    if lacking := [method for method, grid in grid_of.items() if not grid]:
        raise MethodError(registry.refusal(lacking, option))
    others = options_by_method(methods, {name: value for name, value in values.items() if name != option}, dataset)
    return {method: Sweep(option, grid, published.get(option), others[method]) for method, grid in grid_of.items()}


def _grid(option: Option | None, published: float | None) -> tuple[float, ...]:
    """Values from one limit of an option to the other, and the published one; none for what is no number with limits.

    A value SWEEP of an option without a grid is left to the method, as it may be a word.
    """
    if option is None or option.whole or option.minimum is None or option.maximum is None:
        return ()
    steps = round((option.maximum - option.minimum) / _STEP)
    even = {round(option.minimum + step * _STEP, 6) for step in range(steps + 1)}
    return tuple(sorted(even if published is None else even | {published}))


def _with_published(values: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The values with the number that was published for the benchmark in the place of PUBLISHED."""
    numbers = dict(values)
    for name, value in values.items():
        known = {key: spec.published[name] for key, spec in datasets.DATASETS.items() if name in spec.published}
        if value == PUBLISHED and known:
            if dataset not in known:
                wanted = f"give --{name.replace('_', '-')} a number"
                raise DatasetError(f"No {name} was published for {dataset}, only for {', '.join(known)}; {wanted}.")
            numbers[name] = known[dataset]
    return numbers
