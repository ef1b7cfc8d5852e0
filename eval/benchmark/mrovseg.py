"""Seconds and memory of MROVSeg, compared with a plain implementation of the same design, `mrovseg_plain`.

Both have the same (random) weights and text embeddings, and read a square photo of 1024 pixels at the published size.
The seconds are from the pixels of one photo to its labels, with cached text embeddings. As text embeddings serve the
differences between the class embeddings of some queries and their mean, so that different queries get different words.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from eval.benchmark import random_weights
from eval.benchmark.mrovseg_plain import PlainMROVSeg, plain_scores
from eval.benchmark.paired_timing import RELEASED, Timings, describe_conditions, implementations, time_repeats
from eval.benchmark.process import alone
from eval.markdown import table
from ovseg_demo import image
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.mrovseg.checkpoint import build_mrovseg, load_trained, trained_tensors
from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.reader import LONGEST, MROVSegReader
from ovseg_demo.methods.mrovseg.scores import PhotoQueries, QueryScores, class_probabilities
from ovseg_demo.methods.mrovseg.settings import SETTINGS
from ovseg_demo.methods.mrovseg.slices import pad_to_slices
from ovseg_demo.models.clip.optimised import Precision
from ovseg_demo.models.clip.weights import build_empty_clip, load_clip_weights, vision_transformer
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime import memory
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise_image, resize_smoothed, scaled_size
from ovseg_demo.weights import reading

SIZE = (1024, 1024)
"""(height, width) of the photo in pixels."""

PAPER = {"ViT-B-16": (162.1, 640.4)}
"""Millions of parameters and GFLOP by the paper's table 5; its table 3 has 142.8 GFLOP for the same model."""

PLAIN = "plain"

_TEXTS, _CLIP, _TRAINED = "texts", "clip.", "trained."

Labels = tuple[np.ndarray, np.ndarray]
"""The class of every pixel and its score, (H, W) each."""

Implementation = tuple[Callable[[np.ndarray], Any], Callable[[Any], Labels]]
"""From the pixels of a photo, uint8 (H, W, 3), to masks and class embeddings, and from these to labels."""


@dataclass(frozen=True)
class MROVSegMeasurement(Timings):
    """Time, memory and output of one implementation: `labels` int (H, W), and `best`, the best scores, float (H, W)."""

    labels: np.ndarray
    best: np.ndarray


def report(model: str, classes: int, repeats: int, photo: Path) -> str:
    """The tables of `python -m eval.benchmark mrovseg`."""
    runs: dict[str, MROVSegMeasurement] = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as folder:
        weights = Path(folder) / "weights.pth"
        alone(write_weights, model, classes, photo, weights)
        for variant in (PLAIN if each == RELEASED else each for each in implementations()):
            print(f"{variant} …", file=sys.stderr, flush=True)
            runs[variant] = alone(run_implementation, variant, model, weights, photo, repeats)
    size = " x ".join(map(str, reversed(SIZE)))
    caption = f"{model}, random weights, {photo.name} at {size}, {classes} classes, {describe_conditions(repeats)}."
    return f"{caption}\n\n{comparison_table(runs)}\n\n{alone(cost_table, model)}"


def write_weights(model: str, classes: int, photo: Path, path: Path) -> None:
    """Write random weights, and text embeddings with which the pixels of a photo get different labels."""
    random_weights.write(partial(_weights, model, classes, photo), path)


def run_implementation(variant: str, model: str, weights: Path, photo: Path, repeats: int) -> MROVSegMeasurement:
    """Measure one implementation in this process, after a warm-up.

    Args:
        variant: PLAIN, or a precision of this project's implementation.
        model: a key of SETTINGS.
        weights: the file of `write_weights`.
        photo: path of a photo.
        repeats: how often the output is computed.
    """
    state = reading.read_weights(weights)
    texts = state.pop(_TEXTS).clone()  # which would keep the whole file in memory
    pixels = resize_smoothed(image.load(photo).pixels, SIZE)
    make = _plain if variant == PLAIN else partial(_ours, cast(Precision, variant))
    implementation: Implementation = make(model, state, texts)
    read, name_pixels = implementation
    del state
    memory.trim_allocator()
    for count in (1, repeats):
        times, found = time_repeats(lambda: read(pixels), name_pixels, lambda labels: labels, count)
    return MROVSegMeasurement(times.reading, times.seconds, times.megabytes, *found)


def comparison_table(runs: dict[str, MROVSegMeasurement]) -> str:
    """A Markdown table with a row for each implementation.

    "Reading" is the time from the pixels to masks and class embeddings, and "new words" the rest, in which other words
    are answered once their embeddings are known. "Same label" is the share of pixels with the label of PLAIN, and
    "difference" the largest difference of the best score among these pixels.
    """
    base, rows = runs[PLAIN], []
    for variant, run in runs.items():
        same = run.labels == base.labels
        naming = statistics.median(all_ - read for all_, read in zip(run.seconds, run.reading, strict=True))
        rows.append(
            [
                variant,
                f"{run.median:.2f}",
                f"{statistics.median(run.reading):.2f}",
                f"{base.median / run.median:.1f}",
                f"{1000 * naming:.0f}",
                f"{run.megabytes:.0f}",
                f"{len(np.unique(run.labels))}",
                f"{np.abs(run.best - base.best)[same].max(initial=0):.0e}",
                f"{same.mean():.1%}",
            ]
        )
    head = ["", "s / image", "reading, s", "times faster", "new words, ms", "peak memory, MB", "labels"]
    return table([*head, "difference", "same label"], rows)


def cost_table(model: str) -> str:
    """A Markdown table of the parameters, without the text tower, and of the operations on a square crop."""
    settings = SETTINGS[model]
    with torch.device("meta"):
        made = MROVSeg(vision_transformer(build_empty_clip(settings.architecture)), settings).eval()
        pixels = torch.zeros(1, 3, settings.short_side, settings.short_side)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        made(pixels)
    millions = sum(parameter.numel() for parameter in made.parameters()) / 1e6
    rows = [["here", f"{millions:.1f}", f"{counter.get_total_flops() / 1e9:.1f}"]]
    if model in PAPER:
        rows.append(["paper, table 5", *(f"{value:.1f}" for value in PAPER[model])])
    return table(["", "parameters, M", f"GFLOP at {settings.short_side} x {settings.short_side}"], rows)


@torch.inference_mode()
def _weights(model: str, classes: int, photo: Path) -> dict[str, Tensor]:
    settings = SETTINGS[model]
    clip = {name: value.float() for name, value in random_weights.clip(settings.architecture).items()}
    _, made = build_mrovseg(clip, settings, "random")
    made.eval().mlp_q.linear_layers()[-1].weight *= 100  # masks that differ from each other
    pixels = _prepared(resize_smoothed(image.load(photo).pixels, SIZE), settings.short_side, made.patch)[0]
    embeddings = made(pixels).embeddings[0]
    apart = F.normalize(embeddings - embeddings.mean(0), dim=1)
    chosen = apart[torch.linspace(0, len(apart) - 1, classes).long()]
    noise = F.normalize(torch.randn_like(chosen), dim=1)
    state = {f"{_CLIP}{name}": value for name, value in clip.items()}
    state |= {f"{_TRAINED}{name}": value for name, value in trained_tensors(made).items()}
    return {**state, _TEXTS: F.normalize(chosen + 0.5 * noise, dim=1).clone()}


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _prepared(pixels: np.ndarray, short_side: int, patch: int) -> tuple[Tensor, tuple[int, int]]:
    """Normalised, padded pixels (1, 3, H, W) of a photo, and its size before padding."""
    size = scaled_size((pixels.shape[0], pixels.shape[1]), short_side, LONGEST)
    return pad_to_slices(normalise_image(resize_smoothed(pixels, size), CLIP_MEAN, CLIP_STD), patch), size


def _ours(precision: Precision, model: str, state: dict[str, Tensor], texts: Tensor) -> Implementation:
    memory.configure_allocator()  # as the demo does
    settings = SETTINGS[model]
    clip, made = build_mrovseg(_part(state, _CLIP), settings, "random")
    load_trained(made, _part(state, _TRAINED), "random")
    reader = MROVSegReader(clip, made, "random", precision=precision)
    words, names = ClassTextEmbeddings(texts, torch.arange(len(texts))), tuple(map(str, range(len(texts))))

    def name_pixels(queries: PhotoQueries) -> Labels:
        probabilities = class_probabilities(reader.class_logits(queries.embeddings, texts), words)
        result = Segmentation.from_scores(names, QueryScores(queries, probabilities, SIZE), SIZE, independent=True)
        return result.labels, result.scores

    return lambda pixels: reader.read(pixels, settings.short_side, lambda _: None), name_pixels


def _plain(model: str, state: dict[str, Tensor], texts: Tensor) -> Implementation:
    settings, clip_state = SETTINGS[model], _part(state, _CLIP)
    _, trained = build_mrovseg(clip_state, settings, "random")
    load_trained(trained, _part(state, _TRAINED), "random")
    stock = load_clip_weights(build_empty_clip(settings.architecture), clip_state, "random")
    plain, patch = PlainMROVSeg(vision_transformer(stock), trained), trained.patch
    del trained._modules["clip_visual"]  # the plain implementation has a copy of its own

    def read(pixels: np.ndarray) -> tuple:
        prepared, size = _prepared(pixels, settings.short_side, patch)
        return *plain(prepared), size, (prepared.shape[2], prepared.shape[3])

    def name_pixels(found: tuple) -> Labels:
        masks, embeddings, size, padded = found
        probabilities = trained.class_logits(embeddings, texts).softmax(1)[:, :-1]
        best, labels = plain_scores(masks, probabilities, padded, size, SIZE).max(0)
        return labels.numpy(), best.numpy()

    return read, name_pixels
