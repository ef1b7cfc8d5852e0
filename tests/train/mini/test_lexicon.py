import pytest
import torch
from open_clip import IMAGENET_CLASSNAMES

from tests.helpers.mini_data import spelling
from train.mini.lexicon import _SYNONYMS, RESTRICTED, TEMPLATES, UNSEEN_VOC, Lexicon

WORDS = ["person", "dining table", "diningtable", "goldfish", "couch", "umbrella"]


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(WORDS, spelling, restricted=False)


def drawn(lexicon: Lexicon, seed: int) -> torch.Tensor:
    return lexicon.draw(torch.Generator().manual_seed(seed))


def test_words_have_rows_and_others_have_none(lexicon):
    assert lexicon.words == sorted(WORDS)
    assert lexicon.index(["umbrella", "nobody", "couch"]).tolist() == [5, -1, 0]
    empty = lexicon.index([])
    assert (empty.shape, empty.dtype) == ((0,), torch.int64)


def test_a_word_is_drawn_in_its_own_wordings_and_all_in_one_template(lexicon):
    wordings = [[word, *_SYNONYMS.get(word, ())] for word in lexicon.words]
    seen = set()
    for seed in range(60):
        texts = drawn(lexicon, seed)
        assert texts.shape == (len(WORDS), 384)
        told = [
            {
                template
                for template in TEMPLATES
                for text in row
                if torch.equal(spelling([template.format(text)])[0], each)
            }
            for each, row in zip(texts, wordings, strict=True)
        ]
        (template,) = set.intersection(*told)
        person = lexicon.words.index("person")
        seen.add(template)
        seen |= {text for text in wordings[person] if torch.equal(spelling([template.format(text)])[0], texts[person])}
    assert seen == {*TEMPLATES, "person", *_SYNONYMS["person"]}


def test_the_generator_alone_decides_what_is_drawn(lexicon):
    torch.manual_seed(1)
    first = drawn(lexicon, 5)
    torch.manual_seed(2)
    torch.testing.assert_close(drawn(lexicon, 5), first, rtol=0, atol=0)
    assert not all(torch.equal(drawn(lexicon, seed), first) for seed in range(6, 12))


def test_words_that_mean_the_same_are_no_negatives(lexicon):
    rows, fish = lexicon.index(["dining table", "goldfish"]), IMAGENET_CLASSNAMES.index("goldfish")
    found = lexicon.not_negatives(rows, torch.tensor([fish, 500]))
    assert found.shape == (2, len(WORDS) + 2)
    assert {(row, column) for row, column in found.nonzero().tolist()} == {
        (0, lexicon.index(["diningtable"]).item()),
        (1, len(WORDS)),  # ImageNet's goldfish beside the word; the word itself stays the right one
    }


def test_a_restricted_lexicon_has_no_restricted_word_nor_wording(monkeypatch):
    monkeypatch.setitem(_SYNONYMS, "person", ["human", "teddy bear"])
    asked = []

    def listening(texts):
        asked.extend(texts)
        return spelling(texts)

    lexicon = Lexicon(WORDS, listening, restricted=True)
    assert lexicon.words == ["dining table", "diningtable", "goldfish", "person"]
    assert lexicon.index(["umbrella"]).item() == -1
    wordings = asked[: -len(IMAGENET_CLASSNAMES)]
    assert "human" in wordings
    assert not {template.format(word) for template in TEMPLATES for word in RESTRICTED} & set(wordings)


def test_what_is_restricted():
    assert UNSEEN_VOC < RESTRICTED
    assert {"giraffe", "umbrella", "skateboard", "hot dog", "pizza", "donut", "microwave", "clock"} < RESTRICTED
    assert {"teddy bear", "curtain", "flower", "sand", "snow", "towel", "couch", "tv", "potted plant"} < RESTRICTED
