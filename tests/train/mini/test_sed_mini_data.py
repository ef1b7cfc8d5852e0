"""What the decoder is asked while it learns, over features that are made up and words that are alike by spelling."""

import dataclasses

import pytest
import torch

from ovseg_demo.methods.sed import mini
from ovseg_demo.methods.sed.mini import MiniCostMaps, MultiScaleFeatures
from ovseg_demo.models.mini.model import DenseFeatures
from tests.helpers.mini_data import KEYS, VOC, spelling, two_halves, write_labelled_set
from train.common import image_sets
from train.mini.lexicon import Lexicon
from train.mini.sed.batches import BatchSizes, CostMapBatches

STREET = ["road", "sky", "snow"]
SIZES = BatchSizes(views=2, words=(4, 12), distractors=3, single=0.0)


class Words:
    """In place of the mini model: costs are told by the words."""

    name = "words"

    def embed_texts(self, words):
        return spelling(words)

    def dense_logits(self, photo, texts):
        return texts[:, :1, None].expand(-1, *photo.dense.shape[:2])

    def anchor_logits(self, photo, texts):
        return texts[:, :1, None].expand(-1, 3, 4)


class Seen:
    """In place of stored views: the labels of one photo of each set, and maps of zeros."""

    def __init__(self, *labels):
        self.labels = labels

    def draw(self, number: int, photo: int, generator: torch.Generator):
        maps = tuple(torch.zeros(1, 3 * 2**n, 4 * 2**n) for n in (1, 2, 3))
        middle = DenseFeatures(torch.zeros(3, 4, 1), torch.zeros(24, 32, 1), maps)
        small = DenseFeatures(torch.zeros(2, 2, 1), torch.zeros(12, 16, 1), ())
        return MultiScaleFeatures(middle, middle, small), self.labels[number]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A set of streets, without background, and one of VOC's, with."""
    folder = tmp_path_factory.mktemp("data")
    write_labelled_set(folder / "street_train", STREET, {KEYS[0]: two_halves(0, 2)})
    write_labelled_set(folder / "voc_train", VOC, {KEYS[0]: two_halves(VOC.index("cat"), 20)})
    return image_sets.labelled_sets(folder)


@pytest.fixture(scope="module")
def lexicon(found):
    return Lexicon([name for source in found for name in source.names if name != "background"], spelling, False)


def columns(left: int, right: int) -> torch.Tensor:
    """Labels of two halves, their borders being ignored."""
    labels = torch.full((24, 32), -1)
    labels[2:, :16], labels[2:, 16:] = left, right
    return labels


STREETS, CATS = columns(0, 2), columns(VOC.index("cat"), 20)


def drawn(found, lexicon, count: int = 20, **changes) -> list[dict]:
    """Single views."""
    data = CostMapBatches(
        found, Seen(STREETS, CATS), lexicon, MiniCostMaps(Words()), dataclasses.replace(SIZES, **changes)
    )
    batches = [data(torch.Generator().manual_seed(seed)) for seed in range(count)]
    return [dict(zip(batch, view, strict=True)) for batch in batches for view in zip(*batch.values(), strict=True)]


def test_shapes(found, lexicon):
    for view in drawn(found, lexicon, 5):
        classes = len(view["cost"])
        assert view["cost"].shape == (classes, mini.DECODER_SIZES.prompts, 3, 4)
        assert view["targets"].shape == view["counted"].shape == (classes, 24, 32)
        assert view["counted"].dtype == torch.bool
        assert [level.shape for level in view["skips"]] == [(1, 6, 8), (1, 12, 16), (1, 24, 32)]
        assert not view["cost"].is_inference()


def test_targets_are_where_the_class_is_and_nothing_counts_where_no_label_is(found, lexicon):
    for view in drawn(found, lexicon):
        assert not view["counted"][:, :2].any()
        for target in view["targets"]:
            shown = {
                (target * (labels == index)).sum().item() for labels in (STREETS, CATS) for index in labels.unique()
            }
            assert target.sum() in (0, 22 * 16)
            assert shown <= {0, 22 * 16}


def test_the_number_of_words_varies_and_most_that_are_shown_are_asked(found, lexicon):
    views = drawn(found, lexicon, 60)
    asked = {len(view["cost"]) for view in views}
    assert min(asked) >= 2
    assert max(asked) <= 12
    assert len(asked) > 4
    share = sum(view["targets"].flatten(1).any(1).any().item() for view in views) / len(views)
    assert share > 0.9
    dropped = drawn(found, lexicon, 20, dropped=1.0)
    assert not any(view["targets"].any() for view in dropped)


def test_a_name_of_imagenet_counts_on_no_background_and_nowhere_it_means_the_same(found, lexicon):
    told = {}
    for view in drawn(found, lexicon, 120, distractors=12):
        for target, counted in zip(view["targets"], view["counted"], strict=True):
            if not target.any():
                told.setdefault(counted[2:].float().mean().item(), 0)
    assert set(told) == {1.0, 0.5}  # words of the set count everywhere; of VOC's halves, only the cat is no background


def test_alike_names_are_no_negatives(found, lexicon):
    lexicon = Lexicon([*lexicon.words], spelling, False)
    lexicon._related[lexicon.words.index("road")] = True
    views = drawn(found, lexicon, 60, distractors=12)
    halved = [counted[2:, 16:].all() and not counted[2:, :16].any() for v in views for counted in v["counted"]]
    assert any(halved)


def test_a_single_word_is_alone_and_counts_wherever_there_is_a_label(found, lexicon):
    for view in drawn(found, lexicon, 20, single=1.0, dropped=0.0):
        assert len(view["cost"]) == 1
        assert view["targets"].any()
        assert view["counted"][0, 2:].all()
    assert not any(view["targets"].any() for view in drawn(found, lexicon, 5, single=1.0, dropped=1.0))


def test_the_generator_alone_decides_a_batch(found, lexicon):
    torch.manual_seed(1)
    first = drawn(found, lexicon, 3)
    torch.manual_seed(2)
    again = drawn(found, lexicon, 3)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one["cost"], other["cost"], rtol=0, atol=0)
        torch.testing.assert_close(one["targets"], other["targets"], rtol=0, atol=0)
