"""What the controls say, kept with a result to tell whether it is still theirs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ovseg_demo import vocabulary
from ovseg_demo.errors import UserError
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import DECODER_STAGES, Options


@dataclass(frozen=True)
class Asked:
    """What a person asked for. The settings have the names and the values of `Options`.

    Attributes:
        photo: path of the uploaded file; None where there is none.
        words: the text of the vocabulary box.
        methods: one, or those of a comparison.
    """

    photo: str | None
    words: str
    methods: tuple[str, ...]
    granularity: float | None = Options.granularity
    proposals: str = Options.proposals
    rejection: tuple[int, ...] | None = Options.rejection
    seen: tuple[str, ...] | None = Options.seen
    trusty: bool = Options.trusty

    @classmethod
    def of(
        cls,
        photo: str | None,
        words: str,
        methods: Iterable[str],
        granularity: float,
        automatic: bool,
        proposals: str,
        rejecting: bool,
        best: int,
        as_trained: bool,
        marked: Sequence[str] | None,
        trusty: bool,
    ) -> "Asked":
        """What all controls say: each switch decides whether the setting beside it counts."""
        return cls(
            photo,
            words,
            tuple(methods),
            granularity_of(granularity, automatic),
            proposals,
            each_stage(best) if rejecting else None,
            None if as_trained else _marked(words, marked),
            trusty,
        )

    def options(self, method: str) -> Options:
        """The settings for one method: only those that it uses, because it would refuse some of the others."""
        return Options(**{option: getattr(self, option) for option in SETTINGS & used([method])})

    def change(self, now: "Asked") -> str:
        """The weightiest difference of `now` that a result shows: "photo", "words", "settings" or ""."""
        if now.photo != self.photo:
            return "photo"
        if now.words.strip() != self.words.strip():
            return "words"
        if set(now.methods) != set(self.methods):
            return "settings"
        differ = any(getattr(now, option) != getattr(self, option) for option in SETTINGS & used(self.methods))
        return "settings" if differ else ""


SETTINGS = {"granularity", "proposals", "rejection", "seen", "trusty"}
"""The options that the page has a control for."""


def used(chosen: Iterable[str]) -> set[str]:
    """Names of the options that change something for at least one method."""
    return {option for method in chosen for option in registry.get(method).uses}


def granularity_of(value: float, automatic: bool) -> float | None:
    """What the slider and its switch say together."""
    return None if automatic else value


def each_stage(best: Any) -> tuple[Any, ...]:
    """Early rejection with one k for all stages."""
    return (best,) * DECODER_STAGES


def names(words: str) -> tuple[str, ...]:
    """The classes that a vocabulary box holds; none while its text cannot be used."""
    try:
        return vocabulary.parse(words).names
    except UserError:
        return ()


def _marked(words: str, marked: Sequence[str] | None) -> tuple[str, ...]:
    """Of the classes that are typed, those with a mark; the browser remembers marks of words that were typed before."""
    kept = frozenset(marked or ())
    return tuple(name for name in names(words) if name in kept)


def plain(
    granularity: float | None,
    proposals: str,
    rejection: int | None = None,
    seen: str | None = None,
    trusty: bool = True,
) -> Options:
    """What the API's plain inputs say. Raises UserError for what is out of range."""
    if granularity is not None and not isinstance(granularity, int | float):
        raise UserError("Granularity must be a number between 0 and 1.")
    return Options(
        granularity,
        proposals,
        rejection=None if rejection is None else each_stage(rejection),
        seen=None if seen is None else vocabulary.parse_words(seen),
        trusty=trusty,
    )
