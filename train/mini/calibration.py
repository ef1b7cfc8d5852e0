"""Calibrate the mini model: fit the logistic regressions of `ovseg_demo.models.base.Calibration`.

    python -m train.mini.calibration --data DIR

The photos are the held-out parts of two sets whose masks tell what is none of their classes, PASCAL VOC's and COCO's
things; no head was trained on them. Every photo is asked for vocabularies with absent words, as in `eval.absent_words`.
The calibrations of positions and of regions are printed as they stand in `ovseg_demo/models/mini/model.py`. Run this
again after the heads were trained; it takes some five minutes.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from tqdm import tqdm

from eval import datasets
from eval.absent_words.vocabularies import PhotoClasses, draw, truth
from eval.datasets.base import IGNORE, Dataset
from eval.datasets.split import held_out
from ovseg_demo.errors import exit_status
from ovseg_demo.methods import known
from ovseg_demo.methods.background_words import background_words
from ovseg_demo.models.base import Calibration
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.proposals.sam import mobile_sam
from ovseg_demo.proposals.sam.mask_generator import SamMaskGenerator
from ovseg_demo.result import resize_labels
from train.common.image_sets import open_photo

SETS = ("voc_train", "coco_things_train")

PHOTOS = 60
"""At most so many photos of each set."""

SEED = 1
"""Of the vocabularies; `eval.absent_words` measures with 0."""

_DRAWN = 300
"""Places that are drawn for each photo and vocabulary; neighbouring positions are alike."""

_PURE = 0.8
"""Share of a region's pixels that must show one class, or none, for the region to show it."""

_FLOOR_QUANTILE = 0.1
"""The background words weigh at least as much as on this share of the places."""


@dataclass(frozen=True)
class Question:
    """What a model answers at P places of one photo, asked for C classes.

    Attributes:
        logits: of the classes, float32 (C, P).
        background: of R background words, float32 (R, P).
        shown: the class that each place shows, int64 (P,); C where it shows none of them, IGNORE where unknown.
        present: which classes the photo shows, bool (C,).
    """

    logits: Tensor
    background: Tensor
    shown: Tensor
    present: Tensor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, or 2 for unusable arguments."""
    parser = argparse.ArgumentParser(prog="python -m train.mini.calibration", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=f"holds {' and '.join(SETS)}")
    parser.add_argument("--limit", type=int, default=PHOTOS, metavar="N", help="photos of a set (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: _run(parsed.data, parsed.limit))


def _run(data: Path, limit: int) -> int:
    positions, regions = [], []
    for name in SETS:
        dataset = datasets.open_dataset("folder", data / name)
        for of_positions, of_regions in questions(dataset, limit):
            positions.append(of_positions)
            regions.append(of_regions)
    print("DENSE_CALIBRATION =", _written(calibrate(positions)))
    print("REGION_CALIBRATION =", _written(calibrate(regions)))
    return 0


def questions(dataset: Dataset, limit: int) -> Iterator[tuple[Question, Question]]:
    """The mini model's answers at the positions and at the regions of held-out photos, one pair for each vocabulary.

    Args:
        dataset: a set with a background.
        limit: at most so many photos.
    """
    model = MiniModel()
    generator = SamMaskGenerator(mobile_sam.load_mobile_sam(), "fast")
    samples = [sample for sample in dataset if held_out(sample.key)][:limit]
    for sample in tqdm(samples, desc=dataset.name, unit="photo", disable=None):
        photo, labels = open_photo(sample.image).pixels, dataset.load_labels(sample)
        classes = PhotoClasses.of(labels, len(dataset.vocabulary), dataset.background)
        vocabularies = draw(classes, sample.key, SEED).values()
        if not vocabularies:
            continue
        features, proposals = model.embed_image(photo), generator.propose(photo, lambda _: None)
        regions = model.embed_regions(photo, proposals, lambda _: None)
        for offered in vocabularies:
            words = [dataset.vocabulary.names[index] for index in offered]
            texts = model.embed_texts([*words, *background_words(words)])
            shown = _in_vocabulary(truth(labels, classes, offered, len(dataset.vocabulary)), offered)
            present = torch.tensor([index in classes.present for index in offered])
            of_positions = model.dense_logits(features, texts)
            height, width = of_positions.shape[1:]
            at_positions = torch.from_numpy(resize_labels(shown, (height, width))).flatten()
            at_regions = _labels_of_regions(resize_labels(shown, photo.shape[:2]), proposals, len(words))
            yield (
                _question(of_positions.flatten(1), at_positions, present),
                _question(model.logits(regions, texts).T, at_regions, present),
            )


def _question(logits: Tensor, shown: Tensor, present: Tensor) -> Question:
    return Question(logits[: len(present)], logits[len(present) :], shown, present)


def _in_vocabulary(right: np.ndarray, offered: Sequence[int]) -> np.ndarray:
    """Labels of a data set as indices into the offered classes; IGNORE stays, all others become their number."""
    indices = np.full(right.shape, len(offered), np.int64)
    for index, label in enumerate(offered):
        indices[right == label] = index
    indices[right == IGNORE] = IGNORE
    return indices


def _labels_of_regions(shown: np.ndarray, proposals: MaskProposals, classes: int) -> Tensor:
    """What each mask shows, int64 (N,), from what each pixel shows; IGNORE where it is no single class, nor none."""
    labels = torch.full((len(proposals),), IGNORE)
    for number in range(len(proposals)):
        pixels = shown[proposals.mask(number)]
        counts = np.bincount(pixels[pixels != IGNORE], minlength=classes + 1)
        if counts.max(initial=0) >= _PURE * max(1, len(pixels)):
            labels[number] = int(counts.argmax())
    return labels


def calibrate(asked: Sequence[Question]) -> Calibration:
    """Fit both regressions; places that show a word weigh as much as those that show none, as words that are present.

    Args:
        asked: questions about many photos.
    """
    generator = torch.Generator().manual_seed(SEED)
    floor = _floor(asked)
    examples = [_examples(question, floor, generator) for question in asked]
    inputs, right = (torch.cat(parts).numpy() for parts in zip(*examples, strict=True))
    (word, background), offset = _fit(inputs, right, "balanced")
    places = Calibration(word, -background, offset, floor, all_rivals=True)
    highest = [known.highest_odds(known.log_odds(q.logits, q.background, places)) for q in asked if q.logits.shape[1]]
    present = [question.present for question in asked if question.logits.shape[1]]
    (presence,), presence_offset = _fit(torch.cat(highest)[:, None].numpy(), torch.cat(present).numpy(), None)
    return replace(places, presence=presence, presence_offset=presence_offset)


def _floor(asked: Sequence[Question]) -> float:
    weights = torch.cat([question.background.logsumexp(0) for question in asked])
    return float(np.quantile(weights.numpy(), _FLOOR_QUANTILE))


def _examples(question: Question, floor: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (P, 2) of the first regression and whether the best class is right, bool (P,), at places drawn at random.

    Places that show another one of the classes than the best are left out.
    """
    best, classes = question.logits.max(0)
    right = classes == question.shown
    used = (right | (question.shown == len(question.logits))).nonzero()[:, 0]
    used = used[torch.randperm(len(used), generator=generator)[:_DRAWN]]
    rivals = question.background.logsumexp(0).clamp(min=floor)
    return torch.stack([best[used], rivals[used]], 1), right[used]


def _fit(inputs: np.ndarray, right: np.ndarray, weights: str | None) -> tuple[list[float], float]:
    """Coefficients and intercept of a logistic regression."""
    fitted = LogisticRegression(class_weight=weights).fit(inputs, right)
    return fitted.coef_[0].tolist(), float(fitted.intercept_[0])


def _written(calibration: Calibration) -> str:
    *numbers, all_rivals = astuple(calibration)
    return f"Calibration({', '.join(f'{number:.3g}' for number in numbers)}, {all_rivals})"


if __name__ == "__main__":
    sys.exit(main())
