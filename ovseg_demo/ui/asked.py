"""What the controls say, kept with a result to tell whether it is still theirs."""

from collections.abc import Iterable
from dataclasses import dataclass

from ovseg_demo import methods


@dataclass(frozen=True)
class Asked:
    """What a person asked for, as the controls give it.

    Attributes:
        photo: path of the uploaded file; None where there is none.
        words: the text of the vocabulary box.
        methods: one, or those of a comparison.
        granularity: 0 to 1; None is automatic.
        proposals: how thoroughly masks are searched.
        rejection: k of early rejection, the same at each stage; None keeps all words.
    """

    photo: str | None
    words: str
    methods: tuple[str, ...]
    granularity: float | None
    proposals: str
    rejection: int | None = None

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


SETTINGS = {"granularity", "proposals", "rejection"}
"""The options that the page has a control for."""


def used(chosen: Iterable[str]) -> set[str]:
    """Names of the options that change something for at least one method."""
    return {option for method in chosen for option in methods.get(method).uses}


def effective(rejection: int | None, method: str) -> int | None:
    """The page's setting for one method: None for a method that has no early rejection and would refuse another."""
    return rejection if rejection is not None and "rejection" in used([method]) else None
