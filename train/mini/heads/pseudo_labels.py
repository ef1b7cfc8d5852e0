"""Pseudo-labels: photos that nobody labelled, whose places are named by a head that was trained on labelled photos.

The texts of a photo tell what it may show (`train.mini.photo_words`), so that the head has few words to choose from and
is right more often than with all words. Lee (2013) trains a classifier on its own confident answers like this; the
choice among a caption's nouns is OVSeg's (Liang et al. 2023, section 3.2), for places in place of mask proposals.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from train.common.feature_cache import FeatureCache
from train.common.image_sets import DescribedSet, open_photo
from train.common.run_folder import RunFolder
from train.mini.heads.windows import MAPS, encode_window
from train.mini.lexicon import Lexicon
from train.mini.photo_words import PhotoWords, photo_words

_OUTSIDE = -1


@dataclass(frozen=True)
class PseudoLabelRule:
    """What makes a pseudo-label.

    Attributes:
        told: smallest probability, among the words of the photo, of a word that its texts tell of.
        unsaid: the same for surroundings that its texts do not mention.
        smallest: smallest share of a window's places that a word names; fewer places are mostly mistakes.
        related: cosine of text embeddings above which a word is no negative of a photo's own words.
    """

    told: float = 0.5
    unsaid: float = 0.75
    smallest: float = 0.008
    related: float = 0.6


class DescribedWindows:
    """Whole photos with captions or tags as square windows, encoded like labelled ones, in a file a photo.

    Attributes:
        sets: the described sets.
        anchors: the untrained half of the mini model.

    Args:
        sets: see the attribute.
        tower: the frozen image tower.
        anchors: see the attribute.
        side: side of a window in pixels; the longest side of a photo fills it.
        path: folder of the files.

    Raises:
        DatasetError: when a photo cannot be read.
        TrainingError: when a file cannot be written, or the folder holds other windows.
    """

    def __init__(
        self, sets: Sequence[DescribedSet], tower: ImageTower, anchors: Anchors, side: int, path: Path
    ) -> None:
        self.sets, self.anchors = sets, anchors
        photos = {source.name: len(source.photos) for source in sets}
        self._cache = FeatureCache(RunFolder(path, {"photos": photos, "side": side}), ("labels", *MAPS))
        for source in sets:
            for photo in tqdm(source.photos, desc=f"windows of {source.name}", unit="photo", disable=None):
                if (name := _file_name(source, photo)) not in self._cache:
                    pixels = open_photo(photo).pixels
                    labels = np.zeros(pixels.shape[:2], np.int32)  # 0 in the photo, IGNORE beyond it
                    self._cache.store(name, encode_window(pixels, labels, side, (side, side), name, tower, anchors))

    def load(self, source: DescribedSet, photo: Path) -> tuple[dict[str, Tensor], Tensor]:
        """The maps of a photo, as of `WindowFeatures.draw`, and which of its places show the photo, bool (h, w)."""
        stored = self._cache.load(_file_name(source, photo))
        return {name: stored[name].float()[None] for name in MAPS}, stored["labels"] == 0


class PseudoLabels:
    """Pseudo-labels of the photos of a `DescribedWindows`, in a file a set; as many as photos with a named place.

    Attributes:
        words: the words that name places.

    Args:
        windows: the photos.
        heads: their dense head names the places.
        text_tower: embeds the words.
        restricted: whether the restricted words are left out.
        rule: what makes a pseudo-label.
        path: folder of the files; the same heads must have made them.

    Raises:
        TrainingError: when a file is damaged or cannot be written.
    """

    def __init__(
        self,
        windows: DescribedWindows,
        heads: Heads,
        text_tower: TextTower,
        restricted: bool,
        rule: PseudoLabelRule,
        path: Path,
    ) -> None:
        self._windows = windows
        self._photos = [(source, photo) for source in windows.sets for photo in source.photos]
        self._photo_words = [words for source in windows.sets for words in photo_words(source, restricted)]
        self.words = sorted({word for words in self._photo_words for word in words.told | words.unsaid})
        self._texts = text_tower(self.words).cpu()
        self._related = self._texts @ self._texts.T > rule.related
        self._rows = {word: row for row, word in enumerate(self.words)}
        cache = FeatureCache(RunFolder(path, {"restricted": restricted, **asdict(rule)}), ("labels",))
        labels = []
        for source in windows.sets:
            numbers = [number for number, (its_set, _) in enumerate(self._photos) if its_set is source]
            compute = partial(self._name_places, numbers, heads, rule)
            labels.append(cache.get(source.name, compute)["labels"])
        self._labels = torch.cat(labels)
        self._named = (self._labels >= 0).flatten(1).any(1).nonzero()[:, 0]

    def __len__(self) -> int:
        return len(self._named)

    def draw(self, lexicon: Lexicon, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """A photo with a named place, mirrored half of the time; there must be one.

        Args:
            lexicon: has `words`, apart from those that a restricted run leaves out.
            generator: source of all randomness.

        Returns:
            its maps, as of `WindowFeatures.draw`; the lexicon's row of each place, int64 (h, w), -1 where unlabelled;
            and which of the lexicon's W words and, last, "none of these" its places are told apart from, bool (W + 1,).
        """
        number = int(self._named[torch.randint(len(self._named), (), generator=generator)])
        maps, _ = self._windows.load(*self._photos[number])
        in_lexicon = torch.cat([lexicon.index(self.words), torch.tensor([-1])])
        rows = in_lexicon[self._labels[number].long()]
        candidates = torch.zeros(len(lexicon.words) + 1, dtype=torch.bool)
        candidates[in_lexicon[:-1][self._negatives(number)]] = True
        candidates[rows[rows >= 0]] = True
        if torch.rand((), generator=generator) < 0.5:
            return {name: level.flip(3) for name, level in maps.items()}, rows.flip(1), candidates
        return maps, rows, candidates

    def _negatives(self, number: int) -> Tensor:
        """Which words a photo does not show, bool (W,): its own words and those related to them may be there."""
        return ~self._related[self._own(self._photo_words[number])].any(0)

    def _own(self, words: PhotoWords) -> Tensor:
        return torch.tensor(sorted(self._rows[word] for word in words.told | words.unsaid))

    @torch.inference_mode()
    def _name_places(self, numbers: Sequence[int], heads: Heads, rule: PseudoLabelRule) -> dict[str, Tensor]:
        """Rows of `words` of N photos, "labels", int16 (N, h, w), -1 where unlabelled."""
        bar = tqdm(numbers, desc="pseudo-labels", unit="photo", disable=None)
        return {"labels": torch.stack([self._name_photo(number, heads, rule) for number in bar])}

    def _name_photo(self, number: int, heads: Heads, rule: PseudoLabelRule) -> Tensor:
        maps, inside = self._windows.load(*self._photos[number])
        words = self._photo_words[number]
        own = self._own(words)
        probabilities = place_logits(heads, self._windows.anchors, maps, self._texts[own]).softmax(0)
        least = torch.tensor([rule.told if self.words[row] in words.told else rule.unsaid for row in own])
        best, index = probabilities.max(0)
        rows = torch.where(inside & (best >= least[index]), own[index], _OUTSIDE)
        counts = torch.bincount(rows[rows >= 0], minlength=len(self.words))
        rows[(counts < rule.smallest * rows.numel())[rows] & (rows >= 0)] = _OUTSIDE
        return rows.short()


def place_logits(heads: Heads, anchors: Anchors, maps: dict[str, Tensor], texts: Tensor) -> Tensor:
    """Logits (K, h, w) of texts (K, 384) at the places of one window, as `MiniModel.dense_logits` gives them.

    Args:
        heads: the heads, of which the dense one is used.
        anchors: the untrained half of the mini model.
        maps: the maps of the window, see `MAPS`.
        texts: unit text embeddings.
    """
    *pyramid, weights = (maps[name] for name in MAPS)
    fine = (heads.dense_embeddings(pyramid)[0] @ texts.T).movedim(-1, 0)
    coarse = anchors.logits(weights[0].movedim(0, -1).flatten(0, 1), texts)
    coarse = coarse.unflatten(0, weights.shape[2:]).movedim(-1, 0)
    return fine + F.interpolate(coarse[None], fine.shape[1:], mode="bilinear")[0]


def _file_name(source: DescribedSet, photo: Path) -> str:
    return f"{source.name}-{photo.stem}"
