"""Which background words a vocabulary rules out."""

import pytest

from ovseg_demo.methods.background_words import OTHERS, RELATED_WORDS, _singular, background_words


def ruled_out(*words: str) -> set[str]:
    return set(RELATED_WORDS) - set(background_words(words))


@pytest.mark.parametrize("word", ["grass", "lawn", "Lawns", "mowed LAWN", "lawn-mower", "a lawn in spring"])
def test_a_word_rules_out_what_means_the_same_in_any_spelling(word):
    assert "grass" in ruled_out(word)
    assert "wall" not in ruled_out(word)


@pytest.mark.parametrize(
    ("plural", "background"),
    [
        ("leaves", "bush"),
        ("waves", "sea"),
        ("bookshelves", "shelf"),
        ("scarves", "fabric"),
        ("skies", "cloud"),
        ("bushes", "tree"),
        ("beaches", "sand"),
        ("glasses", "window"),
        ("boxes of tiles", "floor"),
        ("benches", "wood"),
        ("highways", "road"),
    ],
)
def test_a_plural_rules_out_what_its_singular_does(plural, background):
    assert background in ruled_out(plural)


def test_words_that_only_contain_a_related_word_rule_out_nothing():
    assert ruled_out("cat", "skyline", "grasshopper", "bus", "carpenter") == set()


def test_every_word_of_a_vocabulary_counts():
    """Also synonyms, which are words like any other."""
    assert {"sea", "bed", "floor"} <= ruled_out("cat", "ocean", "mattress", "parquet")


def test_where_all_are_ruled_out_others_stands_for_them():
    assert background_words(list(RELATED_WORDS)) == (OTHERS,)
    assert background_words([", ".join(RELATED_WORDS).replace(",", "")]) == (OTHERS,)


def test_the_order_is_that_of_the_list():
    assert background_words(["cat"]) == tuple(RELATED_WORDS)


@pytest.mark.parametrize("word", RELATED_WORDS)
def test_every_entry_is_well_formed(word):
    """Words in lower case, single spaces, none twice."""
    related = RELATED_WORDS[word].split(", ")
    everything = [word, *related]
    assert len({_singular(each) for each in everything}) == len(everything)
    for each in everything:
        assert each == " ".join(each.casefold().split())
        assert each.replace(" ", "").isalpha()
    assert word in ruled_out(word)
    for each in related:
        assert word in ruled_out(each)
