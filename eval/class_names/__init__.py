"""The class names of the benchmarks, in the wordings that were published.

A variant is "BENCHMARK.PUBLISHER", for example "ade20k_150.sed": the words that SED asks for on ADE20K-150. Each file
here holds one list, where it is from, and how each of its publishers reads a name with commas: as one text, or as
synonyms. All lists of a benchmark are in the order of its labels, so any of them goes with any copy of its files.
"""

import json
from collections import Counter
from functools import cache
from importlib import resources

from ovseg_demo.errors import VocabularyError
from ovseg_demo.vocabulary import Vocabulary

_SYNONYMS = "synonyms"


def variants(benchmark: str | None = None) -> tuple[str, ...]:
    """The sorted variants of a benchmark, or of all benchmarks for None; empty for a benchmark without lists."""
    return tuple(v for v in sorted(_lists()) if benchmark in (None, v.partition(".")[0]))


def load_class_names(variant: str) -> Vocabulary:
    """The names of a variant, in label order.

    Where the publisher reads commas as separators of synonyms, names have synonyms; otherwise a name is the whole text.

    Args:
        variant: "BENCHMARK.PUBLISHER".

    Example:
        >>> load_class_names("ade20k_847.sed").synonyms[1], load_class_names("ade20k_847.ovseg").names[1]
        (('edifice',), 'building, edifice')

    Raises:
        VocabularyError: for an unknown variant; it lists the known ones.
    """
    if variant not in _lists():
        known = variants(variant.partition(".")[0]) or variants()
        raise VocabularyError(f"There are no class names '{variant}'; there are {', '.join(known)}.")
    texts, commas = _lists()[variant]
    if commas != _SYNONYMS:
        return Vocabulary(texts, ((),) * len(texts))
    return _with_synonyms([[word.strip() for word in text.split(",")] for text in texts])


def _with_synonyms(classes: list[list[str]]) -> Vocabulary:
    """A vocabulary in which every class has a name of its own, given the words of each class.

    ADE20K-847 has three classes whose first word is "bag". A class is named by its first word, unless other classes
    have the same first word: then by its first word that is no class's first word, if any, the others being synonyms.
    """
    leading = Counter(words[0].casefold() for words in classes)
    names, synonyms = [], []
    for words in classes:
        shared = leading[words[0].casefold()] > 1
        name = next((w for w in words if shared and w.casefold() not in leading), words[0])
        names.append(name)
        synonyms.append(tuple(dict.fromkeys(w for w in words if w != name)))
    return Vocabulary(tuple(names), tuple(synonyms))


@cache
def _lists() -> dict[str, tuple[tuple[str, ...], str]]:
    """The names of every variant, and how its publisher reads commas."""
    found = {}
    for file in resources.files(__name__).iterdir():
        if file.name.endswith(".json"):
            benchmark = file.name.partition(".")[0]
            content = json.loads(file.read_text(encoding="utf-8"))
            for publisher, commas in content["commas"].items():
                found[f"{benchmark}.{publisher}"] = (tuple(content["names"]), commas)
    return found
