"""Measurement of trained models on held-out photos, with and without the trusty weighting."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eval.datasets.base import Dataset
from eval.metrics import GROUND_TRUTH, Confusion, ratio
from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel, embed_as_one_window
from ovseg_demo.methods.tagclip.scores import SEEN_PENALTY, ScoreRule, class_scores, trusty_map
from ovseg_demo.models.mini.model import DenseFeatures, MiniModel, preprocess
from ovseg_demo.result import resize_labels
from train.common.image_sets import open_photo

STEP = 4
"""Stride of the scores in pixels of the scaled photo."""

WEIGHTINGS = {
    "none": (0.0, False),
    "0.1 off seen": (SEEN_PENALTY, False),
    "trusty": (0.0, True),
    "trusty, 0.1 off seen": (SEEN_PENALTY, True),
}
"""For each title the penalty on the probabilities of seen classes, and whether the trusty map weights probabilities."""

_BINS = 200


Key = TypeVar("Key", bound=Hashable)
"""Identifies a model of a measurement."""


@dataclass
class SegmentationCounts:
    """Pixel counts of one model on one data set.

    Attributes:
        confusions: a confusion matrix for each key of WEIGHTINGS.
        trusty: histograms of the trusty probability over the pixels of seen and of unseen classes, float64 (2, bins).
    """

    confusions: dict[str, Confusion]
    trusty: np.ndarray = field(default_factory=lambda: np.zeros((2, _BINS)))

    def numbers(self, weighting: str, seen: Sequence[bool]) -> tuple[float, ...]:
        """pAcc, mIoU(S), mIoU(U) and hIoU in percent over the classes in the ground truth.

        Args:
            weighting: a key of WEIGHTINGS.
            seen: for each class, whether it counts as seen.
        """
        split = [tuple(i for i, is_seen in enumerate(seen) if is_seen is wanted) for wanted in (True, False)]
        scores = self.confusions[weighting].scores(*split)
        means = scores.means[GROUND_TRUTH]
        return tuple(100 * value for value in (scores.pixel_accuracy, means.seen, means.unseen, means.harmonic))

    def trusty_auc(self) -> float:
        """Area under the ROC curve of the trusty map for telling unseen from seen pixels, 0 to 1, or NaN."""
        seen, unseen = self.trusty
        below = seen.cumsum() - seen / 2
        return float(ratio((unseen * below).sum(), seen.sum() * unseen.sum()))

    def mean_trusty(self) -> tuple[float, float]:
        """The mean trusty probability over pixels of seen classes and over pixels of unseen classes, 0 to 1."""
        centres = (np.arange(_BINS) + 0.5) / _BINS
        seen, unseen = ratio((self.trusty * centres).sum(1), self.trusty.sum(1))
        return float(seen), float(unseen)


@torch.inference_mode()
def measure_models(
    models: Mapping[Key, MiniTagCLIPModel], dataset: Dataset, seen: Sequence[bool], vlm: MiniModel
) -> dict[Key, SegmentationCounts]:
    """Pixel counts of models by their keys; every photo is encoded once for all models.

    Args:
        models: trained models by keys of any kind.
        dataset: photos with labels, background ignored.
        seen: for each class of the dataset, whether it counts as seen.
        vlm: the mini model, which embeds photos and words.

    Raises:
        UserError: when a photo or a label file cannot be used.
    """
    texts = vlm.embed_texts(dataset.vocabulary.names)
    is_seen = np.array(seen)
    counts = {key: SegmentationCounts({title: Confusion(len(seen)) for title in WEIGHTINGS}) for key in models}
    for sample in tqdm(dataset, desc=f"measuring on {dataset.name}", unit="photo", disable=None):
        photo = vlm.embed_pixels(preprocess(open_photo(sample.image).pixels))
        labels = dataset.load_labels(sample)
        for key, model in models.items():
            for title, scores in _score(model, photo, texts, tuple(seen)):
                resized = resize_labels(labels, (scores.shape[1], scores.shape[2]))
                if title is None:
                    _count_trusty(counts[key].trusty, scores[0].numpy(), resized, is_seen)
                else:
                    counts[key].confusions[title].add(resized, scores.argmax(0).numpy())
    return counts


def _score(
    model: MiniTagCLIPModel, photo: DenseFeatures, texts: Tensor, seen: tuple[bool, ...]
) -> Iterator[tuple[str | None, Tensor]]:
    """The title of each weighting with scores (C, h, w), and None with the trusty map (1, h, w)."""
    windows = embed_as_one_window(photo, model.adapter)
    logits = model.decoder(windows.embeddings, texts)
    for title, (seen_penalty, trusty) in WEIGHTINGS.items():
        if not trusty or logits.trusty is not None:
            yield title, class_scores(windows, logits, ScoreRule(seen, seen_penalty, trusty), STEP)
    if logits.trusty is not None:
        yield None, trusty_map(windows, logits, STEP)


def _count_trusty(counts: np.ndarray, trusty: np.ndarray, labels: np.ndarray, seen: np.ndarray) -> None:
    """Add the histograms of the trusty map (h, w) over pixels of seen and of unseen classes to `counts` (2, bins)."""
    bins = np.minimum((trusty * _BINS).astype(int), _BINS - 1)
    known = labels >= 0
    for row, wanted in enumerate((True, False)):
        counts[row] += np.bincount(bins[known & (seen[labels.clip(0)] == wanted)], minlength=_BINS)
