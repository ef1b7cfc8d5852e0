from pathlib import Path

import pytest

from train.common.image_sets import DescribedSet
from train.mini.photo_words import PEOPLE, SURROUNDINGS, VAGUE, photo_words


def told(*texts: list[str], tags: bool = False, restricted: bool = False) -> list[set[str]]:
    photos = tuple(Path(f"{number}.jpg") for number in range(len(texts)))
    source = DescribedSet("a_train", photos, tuple(map(tuple, texts)), tags)
    return [set(words.told) for words in photo_words(source, restricted)]


def test_captions_tell_of_the_nouns_they_agree_on():
    assert told(["A dog runs .", "a dog with a frisbee", "it runs"]) == [{"dog"}]


def test_a_rare_noun_is_not_used():
    dogs, frisbee = [["a dog", "the dog"]] * 5, ["a frisbee", "the frisbee"]
    assert told(*dogs, frisbee) == [{"dog"}] * 5 + [set()]


def test_a_noun_that_one_caption_mentions_may_be_there():
    dogs, frisbees = [["a dog", "the dog", "with a frisbee"]] * 5, [["a frisbee", "the frisbee"]] * 5
    assert told(*dogs, *frisbees)[0] == {"dog", "frisbee"}


@pytest.mark.parametrize("word", sorted(PEOPLE))
def test_people_are_persons_whatever_they_are_called(word):
    assert told([f"a {word} here", f"the {word}"]) == [{"person"}]
    assert told([f"a {word} here", "nobody at all", "an empty place"]) == [set()]


def test_vague_nouns_tell_nothing():
    assert told(["an orange top", "an orange top"]) == [set()]
    assert not VAGUE & set(SURROUNDINGS)


def test_tags_tell_of_the_thing_they_name():
    found = told(["living room", "coffee table with shelf", "curtains", "two-seat sofa", "cord set"], tags=True)
    assert found == [{"table", "curtain", "sofa"}]
    assert told(["tench"], ["tiger shark"], tags=True) == [{"tench"}, {"tiger shark"}]


def test_surroundings_that_no_text_mentions_are_unsaid():
    source = DescribedSet("a_train", (Path("0.jpg"),), (("dog on grass", "a dog in the grass"),), tags=False)
    (words,) = photo_words(source, restricted=False)
    assert words.told == {"dog", "grass"}
    assert words.unsaid == set(SURROUNDINGS) - {"grass"}


def test_a_restricted_run_hears_nothing_of_restricted_words():
    (words,) = photo_words(
        DescribedSet("a_train", (Path("0.jpg"),), (("snow and a pizza", "a pizza in the snow"),), tags=False), True
    )
    assert words.told == set()
    assert "snow" not in words.unsaid
    assert "sky" in words.unsaid
