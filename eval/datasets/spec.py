"""What is known of a benchmark before it is found on disk."""

from dataclasses import dataclass

from eval.datasets.layout import Layout


@dataclass(frozen=True)
class Conversion:
    """How raw annotations become a layout.

    Attributes:
        source: the raw annotations.
        target: what is written, into the home where the source is; its own homes do not matter.
        shorter_side: pixels that photos and label maps are scaled down to; None leaves the size and writes no photos.
    """

    source: Layout
    target: Layout
    shorter_side: int | None = None


@dataclass(frozen=True)
class Spec:
    """A benchmark.

    Attributes:
        title: for people.
        names: the lists of `eval.class_names` that fit, "BENCHMARK".
        publisher: whose list is used when none is asked for.
        images: how many the benchmark has; None where that depends.
        layouts: where its files may be, in the order they are looked for.
        conversions: how raw annotations become one of the layouts, in the order they are looked for.
        background: as of Dataset.
        rivals: how many names at the end of the list are rivals, as of Dataset; the background takes their place.
        unseen: as of Dataset; all other classes are seen.
        ensemble: OVSeg's published weight of CLIP beside MaskFormer's own classes; None where there is none.
        ignores_rest: whether pixels of the class that means "none of the others" are ignored instead of counted.
    """

    title: str
    names: str
    publisher: str
    images: int | None
    layouts: tuple[Layout, ...]
    conversions: tuple[Conversion, ...] = ()
    background: int | None = None
    rivals: int = 0
    unseen: tuple[int, ...] = ()
    ensemble: float | None = None
    ignores_rest: bool = False
