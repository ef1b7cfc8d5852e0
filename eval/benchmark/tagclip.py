"""Seconds and memory of TagCLIP and ZegCLIP by number of classes, compared with the releases' implementation.

The releases compute all layers in float32, enlarge the mask logits of all classes to the window's pixels, and there
take sigmoids and weight them. This is done here with plain layers and the same (random) weights; only the
unused outputs of the last decoder layer are left out of both implementations. The seconds are from the pixels of one
window to its labels, with cached text embeddings.

With weights that are random all through, every place looks alike and one class wins them all. Here the last layer takes
off what all places of the photo have in common and makes the rest large, so that there are as many labels to agree on,
and as many places near a boundary, as a trained model finds.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.benchmark import random_weights
from eval.benchmark.paired_timing import RELEASED, Timings, describe_conditions, implementations, time_repeats
from eval.benchmark.process import alone
from eval.markdown import table
from ovseg_demo import image
from ovseg_demo.methods.tagclip import image_encoder
from ovseg_demo.methods.tagclip.checkpoint import ReleasedModel, join_checkpoint, split_checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.scores import SEEN_PENALTY, ScoreRule, class_scores
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto
from ovseg_demo.models.clip.optimised import Precision
from ovseg_demo.runtime import memory
from ovseg_demo.runtime.fused_layers import fuse_layers
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise_image, resize_unsmoothed
from ovseg_demo.weights import reading

MODELS = ("tagclip-own", "zegclip-coco", "zegclip-voc")
"""Ids of the catalogue."""

COUNTS = (20, 171)
"""Classes of PASCAL VOC and of COCO-Stuff."""

SIDE = 512
"""Pixels a side of a window."""

_SEEN_SHARE = 0.75  # as of PASCAL VOC's classes
_SPREAD = 2.0  # standard deviation of the mask logits

Read = Callable[[np.ndarray], ImageEmbeddings]
Score = Callable[[ImageEmbeddings, Tensor, ScoreRule], Tensor]


@dataclass(frozen=True)
class TagCLIPMeasurement(Timings):
    """Time, memory and output of one implementation with one number of classes, from pixels to labels.

    Attributes:
        labels: the class with the highest score at every pixel, int64 (SIDE, SIDE).
        best: the score of that class, float32 (SIDE, SIDE).
    """

    labels: np.ndarray
    best: np.ndarray


Runs = dict[str, dict[int, TagCLIPMeasurement]]
"""By implementation (RELEASED, or the precision of ours) and number of classes."""


def report(model: str, counts: Sequence[int], repeats: int, photo: Path) -> str:
    """The table of `python -m eval.benchmark tagclip`."""
    runs: Runs = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as folder:
        weights = Path(folder) / "weights.pth"
        alone(write_weights, model, photo, weights)
        for variant in implementations():
            print(f"{variant} …", file=sys.stderr, flush=True)
            runs[variant] = alone(run_implementation, variant, weights, photo, counts, repeats)
    caption = f"{model}, random weights, {photo.name} at {SIDE} x {SIDE}, {describe_conditions(repeats)}."
    return f"{caption}\n\n{comparison_table(runs)}"


def write_weights(model: str, photo: Path, path: Path) -> None:
    """Write random weights with which the places of a photo get different labels."""
    random_weights.write(partial(_weights, model, photo), path)


def run_implementation(
    variant: str, weights: Path, photo: Path, counts: Sequence[int], repeats: int
) -> dict[int, TagCLIPMeasurement]:
    """Measure one implementation in this process, after a warm-up.

    Args:
        variant: RELEASED, or a precision of this project's implementation.
        weights: the file of `write_weights`.
        photo: path of a photo.
        counts: numbers of classes.
        repeats: how often the output is computed for each number of classes.

    Returns:
        By number of classes.
    """
    released = split_checkpoint(reading.read_weights(weights))
    read, score = _released(released) if variant == RELEASED else _ours(released, cast(Precision, variant))
    run = partial(_run, read, score, _window(photo), released.sizes)
    run(min(counts), 1)
    return {count: run(count, repeats) for count in counts}


def random_class_texts(count: int, width: int) -> Tensor:
    """Random text embeddings of `count` classes, unit vectors (count, width)."""
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(0)), dim=1)


def comparison_table(runs: Runs) -> str:
    """A Markdown table with a row for each number of classes and implementation.

    "Labels" is the number of classes that are the best of some pixel. "Same label" is the share of pixels with the
    label that RELEASED gives, and "difference" the largest difference of the best score among these pixels.
    """
    rows = []
    for count, base in runs[RELEASED].items():
        for variant, by_count in runs.items():
            run = by_count[count]
            same = run.labels == base.labels
            rows.append(
                [
                    str(count),
                    variant,
                    f"{run.median:.2f}",
                    f"{statistics.median(run.reading):.2f}",
                    f"{base.median / run.median:.1f}",
                    f"{run.megabytes:.0f}",
                    f"{len(np.unique(run.labels))}",
                    f"{np.abs(run.best - base.best)[same].max(initial=0):.0e}",
                    f"{same.mean():.1%}",
                ]
            )
    head = ["classes", "", "s / image", "image tower, s", "times faster", "peak memory, MB", "labels"]
    return table([*head, "difference", "same label"], rows)


@torch.no_grad()
def _weights(model: str, photo: Path) -> dict[str, Tensor]:
    released = split_checkpoint(random_weights.BUILDERS[model]())
    read, _ = _released(released)
    encoded, decoder = read(_window(photo)), _decoder(released)
    query, key = decoder.masks.query, decoder.masks.key
    key.bias.copy_(-key.weight @ encoded.patches.mean((0, 2, 3)))
    spread = decoder(encoded, random_class_texts(max(COUNTS), released.sizes.width)).classes.std()
    for parameter in query.parameters():
        parameter.mul_(_SPREAD / spread)
    return join_checkpoint(replace(released, decoder=decoder.state_dict()))


def _window(photo: Path) -> np.ndarray:
    return resize_unsmoothed(image.load(photo).pixels, (SIDE, SIDE))


def _ours(released: ReleasedModel, precision: Precision) -> tuple[Read, Score]:
    memory.configure_allocator()  # as the demo does
    clip = image_encoder.ClipWindowEncoder(released.clip, "random", "photo", source="random", precision=precision)
    decoder = _decoder(released)
    fuse_layers(decoder)

    def score(images: ImageEmbeddings, texts: Tensor, rule: ScoreRule) -> Tensor:
        return class_scores(WindowedPhoto((SIDE, SIDE), ((0, 0),), images), decoder(images, texts), rule)

    return lambda pixels: clip.embed_image(pixels, lambda _: None).embeddings, score


def _released(released: ReleasedModel) -> tuple[Read, Score]:
    tower, decoder = image_encoder.build_prompted_clip(released.clip, "random").visual, _decoder(released)

    def read(pixels: np.ndarray) -> ImageEmbeddings:
        torch.backends.mha.set_fastpath_enabled(False)  # the release's layers cannot take it, and it is a fifth slower
        try:
            return tower(normalise_image(pixels, IMAGENET_MEAN, IMAGENET_STD))
        finally:
            torch.backends.mha.set_fastpath_enabled(True)

    def score(images: ImageEmbeddings, texts: Tensor, rule: ScoreRule) -> Tensor:
        logits, seen = decoder(images, texts), torch.tensor(rule.seen)
        all_logits = logits.classes if logits.trusty is None else torch.cat([logits.classes, logits.trusty[:, None]], 1)
        (probabilities,) = F.interpolate(all_logits, (SIDE, SIDE), mode="bilinear", align_corners=False).sigmoid()
        masks, unseen = probabilities[: len(seen)], probabilities[-1]
        masks[seen] -= rule.seen_penalty
        if rule.trusty_weighting:
            masks[seen] *= 1 - unseen
            masks[~seen] *= unseen
        return masks

    return read, score


def _decoder(released: ReleasedModel) -> Decoder:
    decoder = Decoder(released.sizes).eval().requires_grad_(False)
    decoder.load_state_dict(released.decoder)
    return decoder


def _run(
    read: Read, score: Score, pixels: np.ndarray, sizes: DecoderSizes, count: int, repeats: int
) -> TagCLIPMeasurement:
    texts = random_class_texts(count, sizes.width)
    seen = tuple(index < _SEEN_SHARE * count for index in range(count))
    rule = ScoreRule(seen, SEEN_PENALTY, sizes.trusty)

    def decode(images: ImageEmbeddings) -> tuple[Tensor, Tensor]:
        best, labels = score(images, texts, rule).max(0)
        return labels, best

    def sample(output: tuple[Tensor, Tensor]) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in output]

    times, labels_and_best = time_repeats(lambda: read(pixels), decode, sample, repeats)
    return TagCLIPMeasurement(*astuple(times), *labels_and_best)
