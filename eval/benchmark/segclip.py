"""Seconds and memory of SegCLIP, compared with the implementation of its release.

The release computes all layers in float32, one window after the other, and each window twice: once for the regions'
places, once for their embeddings. It makes a map of the scores of all classes at every pixel of each window, adds the
windows up at the size of the resized photo, and enlarges the whole to the photo. This is done here with plain layers
and the same (random) weights. The seconds are from the pixels of one photo to its labels, with cached text embeddings.

With random weights the regions are nearly equal. As text embeddings therefore serve the differences between some
regions and the mean of all regions, with some noise, so that different pixels get different labels.
"""

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.benchmark import random_weights
from eval.benchmark.paired_timing import RELEASED, Timings, describe_conditions, implementations, time_repeats
from eval.benchmark.process import alone
from eval.markdown import table
from ovseg_demo import image
from ovseg_demo.methods import windows
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.segclip.cells import RegionCells, cut_cells
from ovseg_demo.methods.segclip.checkpoint import split_checkpoint
from ovseg_demo.methods.segclip.encoder import HIGHEST_SCALE, PhotoRegions, SegCLIPEncoder
from ovseg_demo.methods.segclip.image_tower import GroupingTower
from ovseg_demo.methods.segclip.model import ARCHITECTURE, build_segclip
from ovseg_demo.methods.segclip.options import CONTEXT_THRESHOLD
from ovseg_demo.methods.segclip.scores import IMAGE_CLASSES, name_cells, region_scores
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.models.clip.optimised import Precision
from ovseg_demo.models.text_cache import CACHE_VARIABLE
from ovseg_demo.runtime import memory
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise_image, resize_unsmoothed
from ovseg_demo.weights import reading

MODELS = {"segclip": ARCHITECTURE}
"""open_clip architectures by id of the catalogue."""

SIZE = (480, 640)
"""(height, width) of the photo in pixels."""

_TEXTS = "texts"  # name of the text embeddings in the file of the weights
_NOISE = 0.5  # of the norm of a text embedding

Labels = tuple[Tensor, Tensor]
"""The class of every pixel, -1 where it is unlabelled, and the best score there, (H, W) each."""


@dataclass(frozen=True)
class Implementation:
    """The steps from a photo to labels.

    Attributes:
        read: computes what does not depend on the words, from the pixels of a photo, uint8 (H, W, 3).
        name_pixels: computes labels from that.
        read_word: embeds a new word; None where this is not compared.
    """

    read: Callable[[np.ndarray], Any]
    name_pixels: Callable[[Any], Labels]
    read_word: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class SegCLIPMeasurement(Timings):
    """Time, memory and output of one implementation, from pixels to labels.

    Attributes:
        words: seconds to embed one new word in each repeat; empty where this is not measured.
        labels: the class of every pixel, int64 (H, W).
        best: the best score, float32 (H, W).
    """

    words: list[float]
    labels: np.ndarray
    best: np.ndarray


def report(model: str, classes: int, repeats: int, photo: Path) -> str:
    """The table of `python -m eval.benchmark segclip`."""
    runs: dict[str, SegCLIPMeasurement] = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as folder:
        weights = Path(folder) / "weights.pth"
        alone(write_weights, model, classes, photo, weights)
        for variant in implementations():
            print(f"{variant} …", file=sys.stderr, flush=True)
            environment = {CACHE_VARIABLE: f"{folder}/{variant}"}  # so that every word is new
            runs[variant] = alone(run_implementation, variant, model, weights, photo, repeats, environment=environment)
    size = " x ".join(map(str, reversed(SIZE)))
    caption = f"{model}, random weights, {photo.name} at {size}, {classes} classes, {describe_conditions(repeats)}."
    return f"{caption}\n\n{comparison_table(runs)}"


def write_weights(model: str, classes: int, photo: Path, path: Path) -> None:
    """Write random weights and text embeddings with which the pixels of a photo get different labels."""
    random_weights.write(partial(_weights, model, classes, photo), path)


def run_implementation(variant: str, model: str, weights: Path, photo: Path, repeats: int) -> SegCLIPMeasurement:
    """Measure one implementation in this process, after a warm-up.

    Args:
        variant: RELEASED, or a precision of this project's implementation.
        model: a key of MODELS.
        weights: the file of `write_weights`.
        photo: path of a photo.
        repeats: how often the output is computed.
    """
    state = reading.read_weights(weights)
    texts = state.pop(_TEXTS).clone()  # which would keep the whole file in memory
    if variant == RELEASED:
        implementation = _released(MODELS[model], state, texts)
    else:
        implementation = _ours(MODELS[model], state, texts, cast(Precision, variant))
    del state
    memory.trim_allocator()
    pixels = _pixels(photo)
    _measure(implementation, pixels, 1)
    return _measure(implementation, pixels, repeats)


def comparison_table(runs: dict[str, SegCLIPMeasurement]) -> str:
    """A Markdown table with a row for each implementation.

    "Threshold" is the time in which a moved threshold is answered, "new word" the time in which a new word is. "Labels"
    is the number of classes that some pixel has. "Same label" is the share of pixels with the label that RELEASED
    gives, and "difference" the largest difference of the best score among these pixels.
    """
    base, rows = runs[RELEASED], []
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
                f"{1000 * (naming + statistics.median(run.words)):.0f}" if run.words else "",
                f"{run.megabytes:.0f}",
                f"{len(np.unique(run.labels[run.labels >= 0]))}",
                f"{np.abs(run.best - base.best)[same].max(initial=0):.0e}",
                f"{same.mean():.1%}",
            ]
        )
    head = ["", "s / image", "image tower, s", "times faster", "threshold, ms", "new word, ms", "peak memory, MB"]
    return table([*head, "labels", "difference", "same label"], rows)


@torch.inference_mode()
def _weights(model: str, classes: int, photo: Path) -> dict[str, Tensor]:
    state = random_weights.BUILDERS[model]()
    state["clip.logit_scale"] = torch.tensor(math.log(HIGHEST_SCALE))  # where training ends
    encoder = SegCLIPEncoder(state, "random", source="random", precision="float32", architecture=MODELS[model])
    regions = encoder.read_windows(_pixels(photo), _layout(encoder.patch), lambda _: None).regions.flatten(0, 1)
    apart = F.normalize(regions - regions.mean(0), dim=1)[torch.linspace(0, len(regions) - 1, classes).long()]
    noise = F.normalize(torch.randn_like(apart), dim=1)
    return {**state, _TEXTS: F.normalize(apart + _NOISE * noise, dim=1).clone()}


def _pixels(photo: Path) -> np.ndarray:
    return resize_unsmoothed(image.load(photo).pixels, SIZE)


def _layout(patch: int) -> WindowLayout:
    return WindowLayout.of(SIZE, windows.WINDOW, windows.WINDOW, patch)


def _ours(architecture: str, state: dict[str, Tensor], texts: Tensor, precision: Precision) -> Implementation:
    memory.configure_allocator()  # as the demo does
    encoder = SegCLIPEncoder(state, "random", source="random", precision=precision, architecture=architecture)
    layout, names = _layout(encoder.patch), tuple(map(str, range(len(texts))))
    words = ClassTextEmbeddings(texts, torch.arange(len(texts)))

    def read(pixels: np.ndarray) -> tuple[PhotoRegions, RegionCells]:
        regions = encoder.read_windows(pixels, layout, lambda _: None)
        return regions, cut_cells(regions, SIZE)

    def name_pixels(found: tuple[PhotoRegions, RegionCells]) -> Labels:
        regions, cells = found
        scores = region_scores(regions, words, encoder.scale, image_prior=True)
        result = name_cells(scores, cells, names, CONTEXT_THRESHOLD)
        return torch.from_numpy(result.labels).long(), torch.from_numpy(result.top_scores[0])

    return Implementation(read, name_pixels, lambda word: encoder.embed_texts([word]))


def _released(architecture: str, state: dict[str, Tensor], texts: Tensor) -> Implementation:
    clip, tower = build_segclip(split_checkpoint(state).clip, "random", architecture)
    layout, scale = _layout(tower.patch_size[0]), min(clip.logit_scale.exp().item(), HIGHEST_SCALE)

    def read(pixels: np.ndarray) -> list[tuple[Tensor, Tensor, Tensor]]:
        resized = normalise_image(resize_unsmoothed(pixels, layout.size), CLIP_MEAN, CLIP_STD)[0]
        torch.backends.mha.set_fastpath_enabled(False)  # the release's layers cannot take it
        try:
            return [_read_twice(tower, window[None]) for window in layout.cut(resized)]
        finally:
            torch.backends.mha.set_fastpath_enabled(True)

    def name_pixels(found: list[tuple[Tensor, Tensor, Tensor]]) -> Labels:
        total, count = torch.zeros(1 + len(texts), *layout.size), torch.zeros(layout.size)
        for area, (soft, regions, whole) in zip(layout.areas(), found, strict=True):
            total[(slice(None), *area)] += _window_scores(soft, regions, whole, texts, scale, count[area].shape)
            count[area] += 1
        scores = F.interpolate((total / count)[None], SIZE, mode="bilinear", align_corners=False)[0]
        return scores.softmax(0).argmax(0) - 1, scores[1:].amax(0)

    return Implementation(read, name_pixels)


def _read_twice(tower: GroupingTower, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The soft assignment (8, h, w) of a window (1, 3, h', w'), its regions (8, D) and the whole window (1, D)."""
    first, second = tower(window), tower(window)
    soft = first.grouping.soft[0].unflatten(1, first.grid)
    return soft, F.normalize(second.regions[0], dim=-1), F.normalize(second.images, dim=-1)


def _window_scores(
    soft: Tensor, regions: Tensor, whole: Tensor, texts: Tensor, scale: float, size: tuple[int, ...]
) -> Tensor:
    """The scores of background and all classes at every pixel of a window, (1 + C, h', w')."""
    places = F.interpolate(soft[None], size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    one_hot = F.one_hot(places.argmax(-1), places.shape[-1]).float()
    logits, prior = scale * regions @ texts.T, (scale * whole @ texts.T).softmax(-1)[0]
    likely = torch.zeros_like(prior, dtype=torch.bool).scatter(
        0, prior.topk(min(IMAGE_CLASSES, len(prior))).indices, True
    )
    scores = logits.masked_fill(~likely, -torch.inf).softmax(-1) * logits.softmax(-1)
    of_classes = (one_hot @ scores).permute(2, 0, 1)
    background = (one_hot @ scores).amax(-1) < min(CONTEXT_THRESHOLD, scores.max().item())
    return torch.cat([background[None].float(), of_classes])


def _measure(implementation: Implementation, pixels: np.ndarray, repeats: int) -> SegCLIPMeasurement:
    times, found = time_repeats(
        lambda: implementation.read(pixels),
        implementation.name_pixels,
        lambda labels: [each.numpy() for each in labels],
        repeats,
    )
    words = _time_words(implementation.read_word, repeats) if implementation.read_word else []
    labels, best = found
    return SegCLIPMeasurement(times.reading, times.seconds, times.megabytes, words, labels, best)


def _time_words(read_word: Callable[[str], Any], repeats: int) -> list[float]:
    """The seconds to embed a new word, so many times."""
    seconds = []
    for repeat in range(repeats):
        start = time.perf_counter()
        read_word(f"thing number {repeat} of {repeats}")
        seconds.append(time.perf_counter() - start)
    return seconds
