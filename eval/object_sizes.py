"""How well methods segment small, medium and large objects.

    python -m eval.object_sizes --dataset folder_named --root PATH --method mini-dense sed-mini [--part held-out]

An object is a connected piece of one class in the ground truth; neighbours of one class are one object. Its size is its
area where the photo's longest side is 640 pixels, with COCO's limits: small below 32 x 32 pixels, medium below 96 x 96.
Two scores of every size are means over the objects of a class, and then over the classes. The recall is the share of an
object's pixels that are given its class. The IoU is that of the class in a window around the object, its box and half
of the box's sides on each side, so that what is wrong elsewhere in the photo does not count against the object. Prints
Markdown tables; the mIoU of all pixels, from the same label maps, stands beside them.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from eval import markdown, protocol, run_arguments, runner
from eval.datasets.base import Dataset
from eval.metrics import GROUND_TRUTH, Confusion
from ovseg_demo.engine import Engine
from ovseg_demo.errors import exit_status
from ovseg_demo.methods import command_line, registry

SIZES = ("small", "medium", "large")
SCALE = 640
"""The longest side, in pixels, at which areas are compared with the limits."""
LIMITS = (32**2, 96**2)
SMALLEST = 8**2
"""Pieces below this area at that scale are left out: most are slivers between other objects."""


@dataclass(frozen=True)
class ObjectScore:
    """How well one object is segmented.

    Attributes:
        label: its class.
        size: an index into SIZES.
        iou: of the class in the window around the object, 0 to 1.
        recall: share of the object's pixels that are right, 0 to 1.
    """

    label: int
    size: int
    iou: float
    recall: float


def score_objects(labels: np.ndarray, prediction: np.ndarray, background: int | None = None) -> Iterator[ObjectScore]:
    """The scores of all objects of a photo, except the smallest.

    Args:
        labels: the ground truth, integers (H, W); negative where ignored, which counts nowhere.
        prediction: integers (H, W).
        background: a class that has no objects, if any.
    """
    enlarged = (SCALE / max(labels.shape)) ** 2
    for label in np.unique(labels[labels >= 0]):
        if label == background:
            continue
        labelled: Any = ndimage.label(labels == label)  # its type does not tell what it returns
        pieces = labelled[0]
        for number, box in enumerate(ndimage.find_objects(pieces), 1):
            piece = pieces[box] == number
            if (area := piece.sum() * enlarged) < SMALLEST:
                continue
            window = tuple(_widened(side, length) for side, length in zip(box, labels.shape, strict=True))
            truth, given = labels[window] == label, (prediction[window] == label) & (labels[window] >= 0)
            yield ObjectScore(
                int(label),
                int(np.searchsorted(LIMITS, area, side="right")),
                float((truth & given).sum() / (truth | given).sum()),
                float((prediction[box][piece] == label).mean()),
            )


def _widened(side: slice, length: int) -> slice:
    margin = (side.stop - side.start) // 2
    return slice(max(0, side.start - margin), min(length, side.stop + margin))


def size_row(scores: list[ObjectScore], size: int) -> tuple[int, float, float]:
    """The number of objects of a size, their IoU and their recall: means over objects, then over classes, or NaN."""
    by_class = defaultdict(list)
    for score in scores:
        if score.size == size:
            by_class[score.label].append((score.iou, score.recall))
    if not by_class:
        return 0, float("nan"), float("nan")
    iou, recall = np.mean([np.mean(of_class, 0) for of_class in by_class.values()], 0)
    return sum(map(len, by_class.values())), float(iou), float(recall)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, or 2 for unusable arguments."""
    parser = argparse.ArgumentParser(prog="python -m eval.object_sizes", description=str(__doc__).splitlines()[0])
    run_arguments.add_arguments(parser, out=None)
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: _run(parsed), "Interrupted.")


def _run(arguments: argparse.Namespace) -> int:
    for method in arguments.method:
        registry.available(method)  # fails before time is spent on other methods
    dataset = run_arguments.open_part(arguments)
    dataset = replace(dataset, samples=dataset.samples[: arguments.limit])
    options = protocol.options_by_method(arguments.method, command_line.given_values(arguments), dataset)
    torch.set_num_threads(arguments.threads)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for method in options:
        engine = Engine(device)
        predict = runner.Predictor(engine, dataset, method, options[method])
        rows.append([method, *_cells(dataset, predict, registry.get(method).longest_side)])
        print(markdown.table(_HEAD, rows[-1:]), file=sys.stderr)
    print(f"{dataset.name}, {len(dataset)} photos; IoU and recall of objects, mIoU of all pixels, in %\n")
    print(markdown.table(_HEAD, rows))
    return 0


_HEAD = ("method", *(f"{size}: {what}" for size in SIZES for what in ("objects", "IoU", "recall")), "mIoU")


def _cells(dataset: Dataset, predict: runner.Predictor, longest_side: int) -> list[str]:
    confusion, scores = Confusion(len(dataset.vocabulary)), []
    for sample in tqdm(dataset, unit="photo", disable=None):
        loaded = runner.load_sample(dataset, sample, longest_side)
        prediction, _ = predict(loaded.photo)
        confusion.add(loaded.labels, prediction)
        scores += score_objects(loaded.labels, prediction, dataset.background)
    rows = [size_row(scores, size) for size in range(len(SIZES))]
    cells = [cell for count, *means in rows for cell in (str(count), *(f"{100 * value:.1f}" for value in means))]
    return [*cells, f"{100 * confusion.scores().means[GROUND_TRUTH].miou:.1f}"]


if __name__ == "__main__":
    sys.exit(main())
