"""The words that a photo may show, from its captions or tags, for pseudo-labels.

pseudo_words.json has, beside the nouns: words for people, who all count as "person"; nouns that are vague or mostly
mean something else in captions, such as "orange"; the surroundings that nobody mentions; and other spellings of tags.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.common.image_sets import DescribedSet
from train.mini.lexicon import RESTRICTED
from train.mini.nouns import AGREEING, NOUNS, NounFinder

_TABLE = json.loads(Path(__file__).with_name("pseudo_words.json").read_text(encoding="utf-8"))
PERSON = "person"
PEOPLE, VAGUE = frozenset(_TABLE[PERSON]), frozenset(_TABLE["vague"])
SURROUNDINGS = tuple(_TABLE["surroundings"])

FREQUENT = 5
"""A noun is used when the captions of at least so many photos agree on it."""


@dataclass(frozen=True)
class PhotoWords:
    """The words that one photo may show.

    Attributes:
        told: words that its texts tell of.
        unsaid: surroundings that its texts do not mention.
    """

    told: frozenset[str]
    unsaid: frozenset[str]


def photo_words(source: DescribedSet, restricted: bool) -> list[PhotoWords]:
    """The words of each photo of a set.

    Args:
        source: photos with captions or tags.
        restricted: whether the words in RESTRICTED are left out.
    """
    told = [_of_tags(tags) for tags in source.texts] if source.tags else _of_captions(source.texts)
    left_out = RESTRICTED if restricted else frozenset()
    return [PhotoWords(words - left_out, frozenset(SURROUNDINGS) - words - left_out) for words in told]


def _of_captions(texts: Sequence[Sequence[str]]) -> list[frozenset[str]]:
    finder = NounFinder()
    agreed = Counter(row for captions in texts for row in finder.agreed(captions))
    used = {NOUNS[row] for row, count in agreed.items() if count >= min(FREQUENT, len(texts))} - VAGUE - PEOPLE
    return [_of_photo(captions, finder, used) for captions in texts]


def _of_photo(captions: Sequence[str], finder: NounFinder, used: set[str]) -> frozenset[str]:
    """What any caption mentions is in question; only what nobody sees is then given to another word."""
    nouns = {NOUNS[row] for caption in captions for row in finder.mentioned(caption)}
    people = sum(not PEOPLE.isdisjoint(caption.lower().split()) for caption in captions)
    person = {PERSON} if people >= min(AGREEING, len(captions)) else set()
    return frozenset((nouns & used) | person)


def _of_tags(tags: Sequence[str]) -> frozenset[str]:
    """The tags that are NOUNS; of another tag the thing that it names: "coffee table with shelf" tells of a table."""
    things = (tag if tag in NOUNS else tag.split(" with ")[0].split(" and ")[0].split()[-1] for tag in tags)
    return frozenset(_TABLE["same"].get(thing, thing) for thing in things).intersection(NOUNS) - VAGUE
