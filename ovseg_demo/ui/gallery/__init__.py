"""The photos that ship with the demo, with their licences and words that fit them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """A photo and a vocabulary for it; `licence` and `source` are its attribution."""

    file: str
    title: str
    topic: str
    words: str
    licence: str
    source: str

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def credit(self) -> str:
        return f"{self.source}, {self.licence}"


@cache
def examples() -> tuple[Example, ...]:
    """Every shipped photo, in the order of the page."""
    return tuple(Example(**entry) for entry in json.loads((FOLDER / "gallery.json").read_text(encoding="utf-8")))
