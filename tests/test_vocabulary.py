import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_demo import vocabulary
from ovseg_demo.errors import VocabularyError
from ovseg_demo.vocabulary import (
    MAX_CLASSES,
    MAX_NAME_LENGTH,
    MAX_TEXT_LENGTH,
    Vocabulary,
    parse,
    readable_text,
    verbatim_text,
)

names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)


def test_every_separator_parts_classes():
    assert parse("cat,dog，bird;fish；cow\nhorse、sheep\r\ngoat").names == (
        *("cat", "dog", "bird", "fish", "cow", "horse", "sheep", "goat"),
    )


def test_synonyms_follow_their_name():
    parsed = parse("sofa | couch｜settee, cat")
    assert parsed.names == ("sofa", "cat")
    assert parsed.synonyms == (("couch", "settee"), ())
    assert parsed.words() == [(0, "sofa"), (0, "couch"), (0, "settee"), (1, "cat")]


def test_space_is_trimmed_and_collapsed_and_order_kept():
    assert parse("  traffic \t light ,, zebra ,apple ").names == ("traffic light", "zebra", "apple")


def test_duplicates_are_dropped_with_a_notice():
    parsed = parse("Cat, cat, CAT, ｃａｔ, dog|cat")
    assert parsed.names == ("Cat", "dog")
    assert parsed.synonyms == ((), ())
    assert "cat" in parsed.notices[0]


def test_a_synonym_met_first_leaves_no_empty_class():
    assert parse("sofa|couch, couch").names == ("sofa",)


def test_symbols_are_read_by_their_names_and_noise_is_left_out():
    assert readable_text("🐈") == "cat"
    assert readable_text("👍🏽 dog") == "thumbs up sign dog"
    parsed = parse("🐈, !!!, dog")
    assert parsed.names == ("🐈", "dog")
    assert "!!!" in parsed.notices[0]


def test_markup_is_only_text():
    assert parse("<b>cat</b>, <script>alert(1)</script>").names == ("<b>cat</b>", "<script>alert(1)</script>")


def test_control_characters_vanish():
    assert parse("ca\x00t\x1b, d\ud800og").names == ("ca t", "d og")


@pytest.mark.parametrize("text", ["", "   ", ",,;\n|", "!!!, ???", "\x00"])
def test_nothing_to_look_for_is_an_error(text):
    with pytest.raises(VocabularyError, match="at least one word"):
        parse(text)


def test_limits_are_told():
    assert len(parse(",".join(f"w{i}" for i in range(MAX_CLASSES)))) == MAX_CLASSES
    with pytest.raises(VocabularyError, match="5000 classes are too many; the limit is 1000"):
        parse(",".join(f"w{i}" for i in range(5000)))
    with pytest.raises(VocabularyError, match="4001 names and synonyms are too many; the limit is 3000"):
        parse("|".join(f"w{i}" for i in range(4000)) + ",cat")
    assert parse("a" * MAX_NAME_LENGTH).names
    with pytest.raises(VocabularyError, match="10000 characters; the limit is 100"):
        parse("a" * 10000)
    with pytest.raises(VocabularyError, match="limit"):
        parse("a," * MAX_TEXT_LENGTH)


@given(st.text(max_size=300))
def test_any_text_parses_or_tells_why(text):
    try:
        parsed = parse(text)
    except VocabularyError:
        return
    words = [word for _, word in parsed.words()]
    assert len({vocabulary._identity(w) for w in words}) == len(words)
    assert all(w == " ".join(w.split()) and readable_text(w) for w in words)


@given(st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=8))
def test_parsing_what_was_parsed_changes_nothing(classes):
    once = parse(", ".join(" | ".join(words) for words in classes))
    again = parse(str(once))
    assert again == once
    assert again.notices == ()
    assert isinstance(again, Vocabulary)


@pytest.mark.parametrize(("name", "read"), [("pottedplant", "potted plant"), ("TVmonitor", "tv monitor"), ("tv", "tv")])
def test_names_that_voc_runs_together_are_read_apart(name, read):
    assert readable_text(name) == read


@pytest.mark.parametrize("name", ["pottedplant", "TVmonitor", "diningtable", "building-other", "🐈 house"])
def test_names_with_a_letter_are_read_verbatim_by_clip(name):
    assert verbatim_text(name) == name


def test_a_name_of_symbols_alone_is_read_by_their_names():
    assert verbatim_text("🐈") == "cat"
    assert verbatim_text("👍🏽") == "thumbs up sign"
    assert verbatim_text("⁂!") == ""


@pytest.mark.parametrize(("text", "words"), [("", ()), (" \n", ()), ("Cat, sofa|couch；cat", ("Cat", "sofa", "couch"))])
def test_words_are_listed_without_their_classes(text, words):
    assert vocabulary.parse_words(text) == words


def test_a_list_of_nothing_readable_is_refused():
    with pytest.raises(VocabularyError):
        vocabulary.parse_words(" , |")
