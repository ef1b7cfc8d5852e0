"""The specification of a benchmark: what is known of it without its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from eval.datasets.layout import Layout


@dataclass(frozen=True)
class Conversion:
    """A conversion of raw annotations from one layout into another.

    Attributes:
        source: layout of the raw annotations.
        target: layout of the files that are written, into the home of the source; the target's homes do not matter.
        shorter_side: pixels that photos and label maps are scaled down to; None leaves the size and writes no photos.
    """

    source: Layout
    target: Layout
    shorter_side: int | None = None


@dataclass(frozen=True)
class Spec:
    """The specification of a benchmark.

    Attributes:
        title: title in reports, for people.
        names: the part "BENCHMARK" of the variants of `eval.class_names` that fit; "" for folders of one's own.
        publisher: whose class names are used by default.
        images: the number of images that are published; None for folders of one's own.
        layouts: layouts in which its files may be, in the order they are tried.
        conversions: conversions of raw annotations into one of the layouts, in the order they are tried.
        background: see `Dataset.background`.
        rivals: the number of names at the end of the list that are rivals, see `Dataset.rivals`; the background takes
            their place.
        unseen: see `Dataset.unseen`; all other classes are seen.
        published: the values of options that were published for this benchmark, by the name of the option: OVSeg's
            `ensemble`, SegCLIP's `background` threshold.
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
    published: Mapping[str, float] = field(default_factory=dict)
    ignores_rest: bool = False
