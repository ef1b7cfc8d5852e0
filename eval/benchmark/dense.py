"""Seconds and memory of dense CLIP, with and without PAMR, compared with the implementation of NACLIP's release.

The release computes all layers in float32, one window after the other, enlarges the cosines of each window to the
window's pixels, adds them up at the size of the resized photo, and enlarges the whole to the photo. Its PAMR gathers
the 16 neighbours of every pixel for all classes at once. This is done here with plain layers and the same (random)
weights. The seconds are from the pixels of one photo to its labels, with cached text embeddings.

With random weights the features of all patches are nearly equal. As text embeddings therefore serve the differences
between the features of some patches and the mean of all patches, so that different pixels get different labels.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
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
from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.dense import pamr
from ovseg_demo.methods.dense.model import DenseClipEncoder, DenseFeatures, build_clip
from ovseg_demo.methods.dense.options import PUBLISHED_SHORT_SIDE, PUBLISHED_STRIDE
from ovseg_demo.methods.dense.ranking import refined_ranking
from ovseg_demo.methods.dense.scores import LOGIT_SCALE, PixelScores
from ovseg_demo.methods.dense.strategies import last_block
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.models.clip.optimised import Precision
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime import memory
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise_image, resize_unsmoothed
from ovseg_demo.weights import reading

MODELS = {"clip-vit-b16": "ViT-B-16-quickgelu", "clip-vit-l14": "ViT-L-14-quickgelu"}
"""open_clip architectures by id of the catalogue."""

SIZE = (480, 640)
"""(height, width) of the photo in pixels."""

_TEXTS = "texts"  # name of the text embeddings in the file of the weights

Labels = tuple[Tensor, Tensor]
"""The class with the highest probability at every pixel, and that probability, (H, W) each."""


@dataclass(frozen=True)
class Implementation:
    """The two steps from a photo to labels.

    Attributes:
        read: computes the features of a photo from its pixels, uint8 (H, W, 3).
        name_pixels: computes labels from these features; its second argument states whether PAMR refines the scores.
    """

    read: Callable[[np.ndarray], Any]
    name_pixels: Callable[[Any, bool], Labels]


@dataclass(frozen=True)
class DenseMeasurement(Timings):
    """Time, memory and output of one implementation, from pixels to labels.

    Attributes:
        labels: the class with the highest probability at every pixel, int64 (H, W).
        best: the probability of that class, float32 (H, W).
    """

    labels: np.ndarray
    best: np.ndarray


Runs = dict[str, dict[bool, DenseMeasurement]]
"""By implementation (RELEASED, or a precision of this project's implementation) and whether PAMR refines the scores."""


def report(model: str, classes: int, repeats: int, photo: Path) -> str:
    """The table of `python -m eval.benchmark dense`."""
    runs: Runs = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as folder:
        weights = Path(folder) / "weights.pth"
        alone(write_weights, model, classes, photo, weights)
        for variant in implementations():
            print(f"{variant} …", file=sys.stderr, flush=True)
            runs[variant] = alone(run_implementation, variant, model, weights, photo, repeats)
    size = " x ".join(map(str, reversed(SIZE)))
    caption = f"{model}, random weights, {photo.name} at {size}, {classes} classes, {describe_conditions(repeats)}."
    return f"{caption}\n\n{comparison_table(runs)}"


def write_weights(model: str, classes: int, photo: Path, path: Path) -> None:
    """Write random weights and text embeddings with which the pixels of a photo get different labels."""
    random_weights.write(partial(_weights, model, classes, photo), path)


def run_implementation(
    variant: str, model: str, weights: Path, photo: Path, repeats: int
) -> dict[bool, DenseMeasurement]:
    """Measure one implementation in this process, after a warm-up.

    Args:
        variant: RELEASED, or a precision of this project's implementation.
        model: a key of MODELS.
        weights: the file of `write_weights`.
        photo: path of a photo.
        repeats: how often the output is computed, with and without PAMR.

    Returns:
        By whether PAMR refines the scores.
    """
    state = reading.read_weights(weights)
    texts = state.pop(_TEXTS).float()
    if variant == RELEASED:
        implementation = _released(MODELS[model], state, texts)
    else:
        implementation = _ours(MODELS[model], state, texts, cast(Precision, variant))
    del state
    memory.trim_allocator()
    pixels = _pixels(photo)
    _measure(implementation, pixels, False, 1)
    return {refined: _measure(implementation, pixels, refined, repeats) for refined in (False, True)}


def comparison_table(runs: Runs) -> str:
    """A Markdown table with a row for each implementation, without PAMR and with it.

    "Labels" is the number of classes that are the best of some pixel. "Same label" is the share of pixels with the
    label that RELEASED gives, and "difference" the largest difference of the probability among these pixels.
    """
    rows = []
    for refined, base in runs[RELEASED].items():
        for variant, measurements in runs.items():
            run = measurements[refined]
            same = run.labels == base.labels
            rows.append(
                [
                    "yes" if refined else "no",
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
    head = ["PAMR", "", "s / image", "image tower, s", "times faster", "peak memory, MB", "labels"]
    return table([*head, "difference", "same label"], rows)


@torch.inference_mode()
def _weights(model: str, classes: int, photo: Path) -> dict[str, Tensor]:
    state = random_weights.BUILDERS[model]()
    encoder = DenseClipEncoder(MODELS[model], state, "random", source="random", precision="float32")
    pixels = _pixels(photo)
    patches = encoder.features(encoder.read_windows(pixels, _layout(encoder.patch), lambda _: None), "naclip").patches
    patches = patches.flatten(0, 1)
    chosen = patches[torch.linspace(0, len(patches) - 1, classes).long()]
    return {**state, _TEXTS: F.normalize(chosen - patches.mean(0), dim=1).clone()}


def _pixels(photo: Path) -> np.ndarray:
    return resize_unsmoothed(image.load(photo).pixels, SIZE)


def _layout(patch: int) -> WindowLayout:
    return WindowLayout.of(SIZE, PUBLISHED_SHORT_SIDE, PUBLISHED_STRIDE, patch)


def _ours(architecture: str, state: dict[str, Tensor], texts: Tensor, precision: Precision) -> Implementation:
    memory.configure_allocator()  # as the demo does
    encoder = DenseClipEncoder(architecture, state, "random", source="random", precision=precision)
    layout, names = _layout(encoder.patch), tuple(map(str, range(len(texts))))

    def read(pixels: np.ndarray) -> tuple[DenseFeatures, Tensor]:
        features = encoder.features(encoder.read_windows(pixels, layout, lambda _: None), "naclip")
        return features, encoder.preprocess(pixels, layout)

    def name_pixels(found: tuple[DenseFeatures, Tensor], refined: bool) -> Labels:
        features, resized = found
        scores = PixelScores(features, ClassTextEmbeddings(texts, torch.arange(len(texts))), SIZE)
        if refined:
            result = refined_ranking(scores, _enlarged(resized), lambda _: None).segmentation(names)
        else:
            result = Segmentation.from_scores(names, scores, SIZE)
        return torch.from_numpy(result.labels).long(), torch.from_numpy(result.scores)

    return Implementation(read, name_pixels)


def _released(architecture: str, state: dict[str, Tensor], texts: Tensor) -> Implementation:
    _, tower = build_clip(architecture, state, "random")
    layout = _layout(tower.patch_size[0])

    def read(pixels: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        resized = normalise_image(resize_unsmoothed(pixels, layout.size), CLIP_MEAN, CLIP_STD)[0]
        torch.backends.mha.set_fastpath_enabled(False)  # the release's layers cannot take it
        try:
            windows = [_patches(window) for window in layout.cut(resized)]
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        return resized, windows

    def _patches(window: Tensor) -> Tensor:
        tokens = tower.run_blocks(tower.embed(*tower.patchify(window[None])), stop=-1)
        last: Any = tower.blocks[-1]
        return F.normalize(tower.project(last_block(last, tokens, layout.grid, "naclip")[:, 1:]), dim=-1)

    def name_pixels(found: tuple[Tensor, list[Tensor]], refined: bool) -> Labels:
        resized, windows = found
        cosines = _pasted(windows, texts, layout)
        cosines = F.interpolate(cosines, SIZE, mode="bilinear", align_corners=False)
        if refined:
            cosines = _gathering_pamr(_enlarged(resized), cosines)
        best, labels = (cosines[0] * LOGIT_SCALE).softmax(0).max(0)
        return labels, best

    return Implementation(read, name_pixels)


def _pasted(windows: list[Tensor], texts: Tensor, layout: WindowLayout) -> Tensor:
    """The cosines of all windows, each enlarged and put into its place, (1, K, h, w)."""
    height, width = layout.size
    total, count, waiting = torch.zeros(1, len(texts), height, width), torch.zeros(height, width), iter(windows)
    for top in layout.rows.starts:
        for left in layout.columns.starts:
            cosines = (next(waiting) @ texts.T).mT.unflatten(2, layout.grid)
            side = (layout.rows.window, layout.columns.window)
            enlarged = F.interpolate(cosines, side, mode="bilinear", align_corners=False)
            total += F.pad(enlarged, (left, width - left - side[1], top, height - top - side[0]))
            count[top : top + side[0], left : left + side[1]] += 1
    return total / count


def _gathering_pamr(guide: Tensor, scores: Tensor) -> Tensor:
    """PAMR with all neighbours of all classes in memory, gathered by convolutions; scores (1, K, H, W)."""
    weights = pamr.affinities(guide)
    kernel = torch.eye(9)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)
    for _ in range(pamr.ITERATIONS):
        near = [
            F.conv2d(F.pad(scores, [distance] * 4, mode="replicate")[0][:, None], kernel, dilation=distance)
            for distance in pamr.DILATIONS
        ]
        scores = (torch.cat(near, 1) * weights).sum(1)[None]
    return scores


def _enlarged(resized: Tensor) -> Tensor:
    return F.interpolate(resized[None], SIZE, mode="bilinear", align_corners=False)[0]


def _measure(implementation: Implementation, pixels: np.ndarray, refined: bool, repeats: int) -> DenseMeasurement:
    times, found = time_repeats(
        lambda: implementation.read(pixels),
        lambda features: implementation.name_pixels(features, refined),
        lambda labels: [each.numpy() for each in labels],
        repeats,
    )
    return DenseMeasurement(*astuple(times), *found)
