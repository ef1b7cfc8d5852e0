import json

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.model import MiniModel
from tests.helpers.mini_data import CHANNELS, Colours, spelling
from train.common import image_sets
from train.mini.heads import pseudo_labels
from train.mini.heads.pseudo_labels import DescribedWindows, PseudoLabelRule, PseudoLabels, place_logits
from train.mini.heads.windows import MAPS
from train.mini.lexicon import Lexicon

ANCHORS = Anchors("cpu")
TOLD, UNSAID = 0.5, 0.75


@pytest.fixture
def windows(tmp_path) -> DescribedWindows:
    """Photos of a dog on grass, twice as wide as high, and one of nothing that has a name."""
    folder = tmp_path / "told_train"
    (folder / "images").mkdir(parents=True)
    dogs = [f"dog{number}" for number in range(5)]
    for key in (*dogs, "none"):
        Image.fromarray(np.full((60, 120, 3), 90, np.uint8)).save(folder / f"images/{key}.jpg")
    (folder / "captions.json").write_text(
        json.dumps({key: ["a dog", "the dog"] for key in dogs} | {"none": ["well", "well"]})
    )
    return DescribedWindows(image_sets.described_sets(tmp_path), Colours(), ANCHORS, 64, tmp_path / "windows")


@pytest.fixture
def halves(monkeypatch):
    """At the left of every photo a dog, if it is asked for; at the right half grass, half something else."""

    def logits(heads, anchors, maps, texts):
        names = spelling(["dog", "grass"])
        found = torch.zeros(len(texts), 16, 16)
        for word, columns, value in ((names[0], slice(0, 8), 9.0), (names[1], slice(8, 12), 9.0)):
            found[:, :, columns] += value * (texts @ word > 0.99)[:, None, None]
        return found

    monkeypatch.setattr(pseudo_labels, "place_logits", logits)


def labelled(windows, path, restricted=False, **rule) -> PseudoLabels:
    rule = PseudoLabelRule(**{"told": TOLD, "unsaid": UNSAID} | rule)
    return PseudoLabels(windows, Heads(), spelling, restricted, rule, path)


def drawn_names(labels: PseudoLabels, seed: int):
    lexicon = Lexicon([*labels.words, "bus"], spelling, False)
    maps, rows, candidates = labels.draw(lexicon, torch.Generator().manual_seed(seed))
    return (
        maps,
        np.array([*lexicon.words, ""])[rows.numpy()],
        {word for word, told_apart in zip([*lexicon.words, "none"], candidates.tolist(), strict=True) if told_apart},
    )


def test_the_whole_photo_fills_its_window_and_the_rest_is_outside(windows):
    (source,) = windows.sets
    maps, inside = windows.load(source, source.photos[0])
    assert [maps[name].shape[1] for name in MAPS] == [*CHANNELS, 1275]
    assert inside.float().mean() == 0.5
    assert set(inside.any(1).tolist()) == {True, False}


@pytest.mark.usefixtures("halves")
def test_places_are_named_where_the_head_is_sure(windows, tmp_path):
    labels = labelled(windows, tmp_path / "labels")
    mirrored = set()
    for seed in range(20):
        maps, names, _ = drawn_names(labels, seed)
        assert maps["stride 4"].shape == (1, 24, 16, 16)
        named = (names != "").nonzero()
        assert set(names[named]) <= {"dog", "grass"}
        if "dog" in names:
            mirrored.add(bool(names[0, 15] == "dog"))
            assert {name: int((names == name).sum()) for name in ("dog", "grass", "")} == {
                "dog": 64,
                "grass": 32,
                "": 160,  # half of the window is beyond the photo
            }
    assert mirrored == {True, False}


@pytest.mark.usefixtures("halves")
def test_a_photo_is_told_apart_from_what_it_does_not_show(windows, tmp_path):
    labels = labelled(windows, tmp_path / "labels")
    for seed in range(10):
        _, names, candidates = drawn_names(labels, seed)
        assert "bus" not in candidates  # no pseudo-label's word
        assert "none" not in candidates
        assert ("dog" in candidates) is True  # as a negative of the photo that does not tell of one, too
        assert "sky" not in candidates  # unsaid, but it may be there
        assert {"grass"} & candidates == {"grass"} & set(names.ravel())


@pytest.mark.usefixtures("halves")
def test_a_word_of_few_places_names_none(windows, tmp_path):
    labels = labelled(windows, tmp_path / "labels", smallest=0.2)
    assert all("grass" not in drawn_names(labels, seed)[1] for seed in range(10))
    assert any("dog" in drawn_names(labels, seed)[1] for seed in range(10))


@pytest.mark.usefixtures("halves")
def test_labels_are_made_once(windows, tmp_path, monkeypatch):
    before = labelled(windows, tmp_path / "labels")._labels
    monkeypatch.setattr(pseudo_labels, "place_logits", None)
    assert torch.equal(labelled(windows, tmp_path / "labels")._labels, before)


def test_logits_of_places_are_those_of_the_demo():
    model = MiniModel()
    pixels = torch.randn(1, 3, 64, 96)
    texts = model.embed_texts(["cat", "sky", "table"])
    pyramid = model.pyramid(pixels)
    maps = dict(zip(MAPS, [*pyramid, model.anchor_weights(pyramid[-1])], strict=True))
    with torch.inference_mode():
        found = place_logits(model._heads, model._anchors, maps, texts)
    expected = model.dense_logits(model.embed_pixels(pixels), texts)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)  # the model keeps its embeddings in half precision
