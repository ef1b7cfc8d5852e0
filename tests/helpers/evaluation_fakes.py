"""A benchmark of tiny drawn pictures and a method that reads its answer off their colours.

python evaluation_fakes.py ARGUMENTS    is `python -m eval.evaluate ARGUMENTS` with both registered
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval import datasets, evaluate
from eval.datasets.base import IGNORE, Dataset, DatasetError, Sample
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.models import factory
from ovseg_demo.result import UNLABELLED, Segmentation
from ovseg_demo.vocabulary import Vocabulary

NAMES = ("cat", "dog", "rest", "sky")
REST = NAMES.index("rest")
_STEP = 40
_IGNORED = 255


def draw(root: Path, count: int, size: tuple[int, int] = (12, 17)) -> None:
    """`count` photos, PNG, and their labels: random blobs that the photos hold with some mistakes."""
    random = np.random.default_rng(count)
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    for number in range(count):
        labels = random.choice([0, 1, 2, 3, _IGNORED], size).astype(np.uint8)
        shown = random.integers(-1, len(NAMES) - 1, size)  # an index into the words asked for, or none
        right = np.where(labels == 3, 2, labels)  # "sky" is asked for third, "rest" not at all
        shown = np.where((random.random(size) < number / count) & (labels < _IGNORED) & (labels != REST), right, shown)
        store(root, f"photo {number}", labels, shown)


def store(root: Path, key: str, labels: np.ndarray, shown: np.ndarray) -> None:
    """One sample: labels of its mask, and what the method will read in its photo."""
    grey = np.where(shown < 0, 250, shown * _STEP).astype(np.uint8)
    Image.fromarray(grey).convert("RGB").save(root / "images" / f"{key}.png")
    Image.fromarray(labels.astype(np.uint8)).save(root / "masks" / f"{key}.png")


def read(root: Path, background: int | None = REST) -> Dataset:
    """The benchmark under a folder; photos without a mask are samples too."""
    keys = sorted(path.stem for path in (root / "images").iterdir())
    return Dataset(
        name="tiny",
        samples=tuple(Sample(k, root / "images" / f"{k}.png", root / "masks" / f"{k}.png") for k in keys),
        vocabulary=Vocabulary(NAMES, ((),) * len(NAMES)),
        decode=_decode,
        background=background,
        seen=(0, 1),
        unseen=(3,),
    )


def _decode(path: Path) -> np.ndarray:
    if not path.exists():
        raise DatasetError(f"{path} is missing.")
    labels = np.array(Image.open(path), np.int32)
    return np.where(labels == _IGNORED, IGNORE, labels)


class Reader:
    """The method, and as much of an engine as the runner asks for; remembers the photos it was shown."""

    def __init__(self) -> None:
        self.shown = []
        self.loaded = 0

    def load(self, method: str) -> None:
        self.loaded += 1

    def segment(self, photo, vocabulary, *_) -> Segmentation:
        self.shown.append(photo)
        grey = photo.pixels[..., 0]
        labels = np.where(grey > 200, UNLABELLED, np.round(grey / _STEP)).astype(np.int32)
        labels[labels >= len(vocabulary)] = UNLABELLED
        none = np.zeros((0, *labels.shape), np.float32)
        scores = np.ones(labels.shape, np.float32)
        return Segmentation(vocabulary.names, labels, scores, none.astype(np.int32), none, timings={"Reading": 0.01})


class Drawer:
    """A method that draws a word, or nothing, wherever a photo of `store` shows a value, and is 0.8 sure of it.

    Args:
        draws: the word for each shown value; None, and words that are not asked for, leave it unlabelled.
        presence: the probability that each word is in the photo.
    """

    def __init__(self, draws: Sequence[str | None], presence: Mapping[str, float]) -> None:
        self._draws, self._presence, self.shown = draws, presence, []

    def load(self, method: str) -> None:
        pass

    def segment(self, photo, vocabulary, *_) -> Segmentation:
        self.shown.append(photo)
        names = vocabulary.names
        drawn = np.array([names.index(word) if word in names else UNLABELLED for word in self._draws], np.int32)
        labels = drawn[np.round(photo.pixels[..., 0] / _STEP).astype(int)]
        scores = np.where(labels == UNLABELLED, 0, np.float32(0.8))
        presence = np.array([self._presence.get(name, 0.5) for name in names], np.float32)
        everywhere = np.ones((1, *labels.shape), np.float32)
        classes = np.arange(len(names), dtype=np.int32)
        top_classes, top_scores = (each[:, None, None] * everywhere for each in (classes, presence))
        return Segmentation(names, labels, scores, top_classes.astype(np.int32), top_scores)


class Letters:
    """In place of a text tower: texts are alike by the letters that they share."""

    name = "letters"

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        return torch.tensor([[word.count(chr(code)) for code in range(ord("a"), ord("z") + 1)] for word in words]) * 1.0


def registered(set_item, set_attribute) -> None:
    """Make the benchmark "tiny" and the methods "reader" and "other reader" known, by monkeypatch's functions."""
    for name in ("reader", "other-reader"):
        set_item(registry.REGISTRY, name, MethodSpec(name, name, "", (), lambda _: Reader(), SamOptions))
    known = {"tiny": SimpleNamespace(publisher="ours", title="tiny pictures", published={})}
    set_attribute(datasets, "DATASETS", known)
    set_attribute(datasets, "open_dataset", lambda name, root, vocabulary: read(root))
    set_attribute(factory, "create_model", lambda name: Letters())


if __name__ == "__main__":
    registered(dict.__setitem__, setattr)
    sys.exit(evaluate.main())
