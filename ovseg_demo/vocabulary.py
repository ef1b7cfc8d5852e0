"""From the text a person typed to classes, synonyms and the words a text tower reads."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from ovseg_demo.errors import VocabularyError

MAX_CLASSES = 1000
"""ADE20K-847 is the largest vocabulary of the field; beyond it every pixel's scores mean little."""

MAX_WORDS = 3000
"""Names and synonyms together; reading this many takes a small machine some ten seconds."""

MAX_NAME_LENGTH = 100
"""Characters. Longer than any class name of the benchmarks, shorter than the 64 to 77 tokens text towers read."""

MAX_TEXT_LENGTH = 200_000
"""Characters of raw input looked at: 1000 classes of 100 characters, with room for synonyms."""

_CLASS_SEPARATORS = re.compile("[,;\n\r\u2028\u2029，；、]+")
_SYNONYM_SEPARATORS = re.compile("[|｜]+")
_RUN_TOGETHER = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
_VARIATION_SELECTORS = "\ufe0e\ufe0f"
_SHOWN = 3


@dataclass(frozen=True)
class Vocabulary:
    """The classes to find, in the order typed.

    Attributes:
        names: one display name a class, unique without regard to case.
        synonyms: for each class its other words; a region's score for the class is that of its best word.
        notices: sentences on what was changed or left out while parsing.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    notices: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def words(self) -> list[tuple[int, str]]:
        """Every word with the index of its class, names first within a class."""
        return [
            (i, w) for i, (name, more) in enumerate(zip(self.names, self.synonyms, strict=True)) for w in (name, *more)
        ]

    def __str__(self) -> str:
        return ", ".join("|".join((n, *s)) for n, s in zip(self.names, self.synonyms, strict=True))


def parse(text: str) -> Vocabulary:
    """Read a vocabulary: "cat, sofa|couch, window" is three classes, the second with a synonym.

    Commas, semicolons (ASCII or fullwidth), ideographic commas and line breaks part classes; "|" parts synonyms.
    Space is trimmed and collapsed; words met before, without regard to case, are dropped with a notice, and so are
    words without a letter, digit or symbol that could be read.

    Example:
        >>> parse("Cat, sofa|couch，cat").names
        ('Cat', 'sofa')

    Raises VocabularyError when nothing remains, or a limit is passed.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise VocabularyError(f"The vocabulary has {len(text)} characters; the limit is {MAX_TEXT_LENGTH}.")
    seen: set[str] = set()
    classes: list[list[str]] = []
    repeated: list[str] = []
    unreadable: list[str] = []
    for chunk in _CLASS_SEPARATORS.split(text):
        words = []
        for word in map(_tidy, _SYNONYM_SEPARATORS.split(chunk)):
            if not word:
                continue
            if len(word) > MAX_NAME_LENGTH:
                raise VocabularyError(
                    f"The name starting with '{word[:20]}…' has {len(word)} characters; the limit is {MAX_NAME_LENGTH}."
                )
            if not readable_text(word):
                unreadable.append(word)
            elif _identity(word) in seen:
                repeated.append(word)
            else:
                seen.add(_identity(word))
                words.append(word)
        if words:
            classes.append(words)
    if not classes:
        raise VocabularyError("Type at least one word to look for, for example: cat, sofa, window.")
    if len(classes) > MAX_CLASSES:
        raise VocabularyError(f"{len(classes)} classes are too many; the limit is {MAX_CLASSES}.")
    if len(words := [word for class_words in classes for word in class_words]) > MAX_WORDS:
        raise VocabularyError(f"{len(words)} names and synonyms are too many; the limit is {MAX_WORDS}.")
    notices = []
    if repeated:
        notices.append(f"Repeated and counted once: {listed(repeated)}.")
    if unreadable:
        notices.append(f"Left out, for lack of a letter: {listed(unreadable)}.")
    return Vocabulary(tuple(c[0] for c in classes), tuple(tuple(c[1:]) for c in classes), tuple(notices))


def listed(words: Sequence[str]) -> str:
    """Words as one reads them in a sentence: the first three, and how many more there are."""
    rest = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def parse_words(text: str) -> tuple[str, ...]:
    """Every word of a text that is parted as a vocabulary is; unlike one it may be empty.

    Raises VocabularyError as `parse` does.
    """
    return tuple(word for _, word in parse(text).words()) if text.strip() else ()


def comparison_key(word: str) -> str:
    """A key that is equal for words that read the same, whatever their case: "TVMonitor" and "tv monitor"."""
    return readable_text(word).casefold()


def verbatim_text(word: str) -> str:
    """The text that a CLIP reads for a word: the word itself, as the published systems read class names.

    "diningtable" stays one word, though CLIP's embedding of "dining table" differs. Only a word without a letter or
    digit is read by the Unicode names of its symbols, because text towers know names but few symbols.

    Example:
        >>> verbatim_text("diningtable"), verbatim_text("🐈")
        ('diningtable', 'cat')
    """
    return word if _has_letters(word) else readable_text(word)


def readable_text(word: str) -> str:
    """The text that is easiest to understand for a word, which the bundled mini model reads; empty when there is none.

    Letters and digits pass through; an emoji or other symbol becomes its Unicode name, because text towers know names
    but few symbols. Names that PASCAL VOC runs together are parted.

    Example:
        >>> readable_text("diningtable"), readable_text("🐈 dog")
        ('dining table', 'cat dog')
    """
    text = " ".join("".join(map(_spelled, word)).split())
    text = _RUN_TOGETHER.get(text.casefold(), text)
    return text if _has_letters(text) else ""


def _has_letters(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _spelled(character: str) -> str:
    category = unicodedata.category(character)
    if category == "So":
        return f" {unicodedata.name(character, '').lower()} "
    # Joiners, variation selectors and skin tones only shape the emoji around them.
    return "" if category in ("Cf", "Sk") or character in _VARIATION_SELECTORS else character


def _tidy(word: str) -> str:
    """Without control, private and surrogate characters, space collapsed."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") else c for c in word)
    return " ".join("".join(kept).split())


def _identity(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()
