"""The published class names."""

import unicodedata

import pytest

from eval import class_names
from ovseg_demo.errors import VocabularyError

SIZES = {
    "ade20k_150": 150,
    "ade20k_847": 847,
    "cityscapes_19": 19,
    "coco_object_81": 81,
    "coco_stuff_171": 171,
    "context_459": 459,
    "context_59": 59,
    "context_60": 60,
    "voc_20": 20,
    "voc_20b": 59,
    "voc_21": 21,
}


@pytest.mark.parametrize("variant", class_names.variants())
def test_names_are_unique_and_as_many_as_labels(variant):
    vocabulary = class_names.load_class_names(variant)
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in vocabulary.names}
    assert len(folded) == len(vocabulary) == SIZES[variant.partition(".")[0]]
    assert len(vocabulary.synonyms) == len(vocabulary)
    assert all(word == word.strip() != "" for _, word in vocabulary.words())


def test_variants_of_a_benchmark():
    assert class_names.variants("ade20k_150") == ("ade20k_150.ovseg", "ade20k_150.san", "ade20k_150.sed")
    assert class_names.variants("context_5") == ()
    assert {v.partition(".")[0] for v in class_names.variants()} == SIZES.keys()


def test_commas_are_synonyms_only_for_those_who_split():
    assert class_names.load_class_names("ade20k_847.ovseg").names[1] == "building, edifice"
    assert class_names.load_class_names("ade20k_847.ovseg").synonyms[1] == ()
    sed = class_names.load_class_names("ade20k_847.sed")
    assert (sed.names[1], sed.synonyms[1]) == ("building", ("edifice",))
    assert not any("," in word for _, word in sed.words())


def test_wordings_differ_where_they_were_published_differently():
    assert class_names.load_class_names("voc_20.ovseg").names[19] == "tvmonitor"
    assert class_names.load_class_names("voc_20.san").names[19] == "tv"
    assert class_names.load_class_names("ade20k_150.ovseg").names[6] == "road, route"
    assert class_names.load_class_names("ade20k_150.sed").names[6] == "road"
    assert class_names.load_class_names("context_459.ovseg").names[2] == "air conditioner"
    assert class_names.load_class_names("context_459.sed").names[2] == "airconditioner"


def test_classes_that_begin_alike_are_named_apart_and_keep_their_words():
    vocabulary = class_names.load_class_names("ade20k_847.sed")
    bags = [i for i, words in enumerate(zip(vocabulary.names, vocabulary.synonyms, strict=True)) if "bag" in str(words)]
    assert {vocabulary.names[i] for i in bags} >= {"bag", "traveling bag", "handbag"}
    published = class_names.load_class_names("ade20k_847.ovseg")
    for text, name, more in zip(published.names, vocabulary.names, vocabulary.synonyms, strict=True):
        assert sorted(word.strip() for word in text.split(",")) == sorted((name, *more))


@pytest.mark.parametrize("benchmark", ["context_59", "voc_21", "context_60", "voc_20", "context_459"])
def test_variants_of_a_benchmark_are_in_one_order(benchmark):
    """Most names are equal in all wordings, so equal names at different places would be a different order."""
    first, *others = (class_names.load_class_names(variant).names for variant in class_names.variants(benchmark))
    for names in others:
        common = set(first) & set(names)
        assert len(common) > len(first) // 2
        assert all(first.index(name) == names.index(name) for name in common)


def test_unknown_variant_lists_what_there_is():
    with pytest.raises(VocabularyError, match=r"'voc_20\.nobody'.*voc_20\.ovseg, voc_20\.san"):
        class_names.load_class_names("voc_20.nobody")
    with pytest.raises(VocabularyError, match=r"'pets'.*ade20k_150\.ovseg.*voc_21\.tagclip"):
        class_names.load_class_names("pets")
