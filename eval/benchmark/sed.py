"""Seconds and memory of SED against the number of classes, compared with the implementation of its release.

The release decodes all classes at once in float32, repeating image features for every class. Its early rejection first
computes the cost map's part of every stage for all classes, then drops classes. Both are done here with plain layers
and the same (random) weights; the seconds are from a photo's pixels to probabilities, with cached text embeddings.

How much early rejection saves depends on how many classes it keeps, and with weights that are random all through it
keeps nearly all: a random image tower finds any two places of a photo as different as two photos. Here the gain of its
last norm is small and its bias is random, so that the cosines of a photo with words are spread as a trained CLIP's:
0.2 +- 0.04, by word more than by place. The table has the number of classes that were kept.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from eval.benchmark import random_weights
from eval.benchmark.paired_timing import RELEASED, Timings, describe_conditions, implementations, time_repeats
from eval.benchmark.process import alone
from eval.markdown import table
from ovseg_demo import image
from ovseg_demo.methods.sed.checkpoint import ReleasedModel, join_checkpoint, split_checkpoint
from ovseg_demo.methods.sed.cost_maps import preprocess_square
from ovseg_demo.methods.sed.decoder import Decoder, cost_map
from ovseg_demo.methods.sed.loading import ARCHITECTURES
from ovseg_demo.methods.sed.optimised_decoder import DecoderOutput, OptimisedDecoder
from ovseg_demo.models.clip.convnext import (
    HierarchicalClip,
    HierarchicalFeatures,
    build_convnext_clip,
    hierarchical_features,
)
from ovseg_demo.models.clip.optimised import Precision
from ovseg_demo.render import export
from ovseg_demo.runtime import memory
from ovseg_demo.weights import reading

MODELS = {"sed-convnext-b": "convnext_base_w_320", "sed-convnext-l": "convnext_large_d_320"}
"""For each id of the catalogue open_clip's name of the CLIP."""

COUNTS = (20, 150, 459, 847)
REJECTION = (8, 8, 8)
"""The k of SED's published numbers with early rejection."""

_GAIN = 0.1  # of the last norm of the image tower
_COMMON, _SHARED = 0.2, 0.9  # cosine of a text with what all texts share; weight of the word in what they do not
_STEP = 8  # every so many places, both ways, probabilities are compared
_PROMPTS = 80  # templates of SED

Read = Callable[[Tensor], HierarchicalFeatures]
Decode = Callable[[Tensor, Sequence[Tensor]], DecoderOutput]


@dataclass(frozen=True)
class Implementation:
    """An implementation of SED.

    Attributes:
        variant: RELEASED, or a precision of this project's implementation.
        rejection: whether it uses category early rejection.
    """

    variant: str
    rejection: bool

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return f"{self.variant}, early rejection" if self.rejection else self.variant


@dataclass(frozen=True)
class SEDMeasurement(Timings):
    """Time, memory and output of one implementation with one number of classes, from pixels to probabilities.

    Attributes:
        kept: the number of classes, and how many of them entered each of the three stages.
        probabilities: of T classes on a coarse grid of the photo, float32 (T, h, w); 0 for classes that were rejected.
    """

    kept: tuple[int, ...]
    probabilities: np.ndarray


Runs = dict[Implementation, dict[int, SEDMeasurement]]
"""By implementation and number of classes."""


def report(model: str, counts: Sequence[int], repeats: int, photo: Path, out: Path) -> str:
    """Measure, write sed.md and sed.png into `out`, and return the Markdown.

    The implementation of the release needs some 20 MB a class.

    Raises:
        BenchmarkError: when there is less memory.
        ImageError: when `out` cannot be written.
    """
    export.check_writable(out)
    runs: Runs = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as name:
        folder = Path(name)
        alone(write_weights, model, folder)
        for rejection, variant in product((False, True), implementations()):
            implementation = Implementation(variant, rejection)
            print(f"{implementation.name} …", file=sys.stderr, flush=True)
            runs[implementation] = alone(run_implementation, implementation, model, folder, photo, counts, repeats)
    caption = f"{model}, random weights, {photo.name} at 768 x 768, {describe_conditions(repeats)}."
    text = f"{caption}\n\n{comparison_table(runs)}"
    (out / "sed.md").write_text(f"{text}\n", encoding="utf-8")
    figure(runs, caption).savefig(out / "sed.png", dpi=120)
    return text


def write_weights(model: str, folder: Path) -> None:
    """Write random weights, and the embedding that the image tower gives every place: texts are drawn around it."""
    random_weights.write(partial(_weights, model), folder / "weights.pth")
    clip = build_convnext_clip(
        MODELS[model], split_checkpoint(reading.read_weights(folder / "weights.pth")).clip, model
    )
    tower: Any = clip.visual  # a TimmModel
    with torch.no_grad():
        save_file({"common": tower.head(tower.trunk.head.norm.bias)}, folder / "common.safetensors")


def run_implementation(
    implementation: Implementation, model: str, folder: Path, photo: Path, counts: Sequence[int], repeats: int
) -> dict[int, SEDMeasurement]:
    """Measure one implementation in this process, after a warm-up.

    Args:
        implementation: the implementation.
        model: a key of MODELS.
        folder: holds the files of `write_weights`.
        photo: path of a photo.
        counts: numbers of classes.
        repeats: how often the output is computed for each number of classes.

    Returns:
        By number of classes.
    """
    released = split_checkpoint(reading.read_weights(folder / "weights.pth"))
    read, decode = (_released if implementation.variant == RELEASED else _ours)(implementation, MODELS[model], released)
    common = load_file(folder / "common.safetensors")["common"]
    pixels = preprocess_square(image.load(photo).pixels)
    _run(read, decode, pixels, random_class_texts(2, common), 1)
    return {count: _run(read, decode, pixels, random_class_texts(count, common), repeats) for count in counts}


def random_class_texts(count: int, common: Tensor) -> Tensor:
    """Random text embeddings of `count` classes in 80 prompts, unit vectors (count, 80, D).

    Their cosines with `common` (D,) are those of CLIP's texts with its photos.
    """
    rng = torch.Generator().manual_seed(0)
    own, prompted = (torch.randn(count, number, len(common), generator=rng) for number in (1, _PROMPTS))
    apart = F.normalize(_SHARED * own + (1 - _SHARED**2) ** 0.5 * prompted, dim=-1)
    return F.normalize(_COMMON * F.normalize(common, dim=0) + (1 - _COMMON**2) ** 0.5 * apart, dim=-1)


def comparison_table(runs: Runs) -> str:
    """A Markdown table with a row for each number of classes and implementation.

    "Difference" is the largest difference of a probability from that of the release, which is taken with early
    rejection if the implementation has it, among the classes that both keep. "Same label" is the share of places with
    the same likeliest class.
    """
    rows = []
    for count in next(iter(runs.values())):
        full, rejecting = (runs[Implementation(RELEASED, rejection)][count] for rejection in (False, True))
        for implementation, by_count in runs.items():
            run = by_count[count]
            difference, same = _likeness(run, rejecting if implementation.rejection else full)
            rows.append(
                [
                    str(count),
                    implementation.name,
                    f"{run.median:.2f}",
                    f"{statistics.median(run.reading):.2f}",
                    f"{full.median / run.median:.1f}",
                    f"{rejecting.median / run.median:.1f}",
                    f"{run.megabytes:.0f}",
                    " → ".join(map(str, run.kept)),
                    f"{difference:.0e}",
                    f"{same:.1%}",
                ]
            )
    faster = [f"times faster than {Implementation(RELEASED, rejection).name}" for rejection in (False, True)]
    head = ["classes", "", "s / image", "image tower, s", *faster, "peak memory, MB", "classes kept"]
    return table([*head, "difference", "same label"], rows)


def figure(runs: Runs, caption: str) -> Figure:
    """Seconds per image against the number of classes: of all implementations, and of this project's alone.

    Args:
        runs: the measurements.
        caption: the title.
    """
    plot = Figure(figsize=(12, 5.5), layout="constrained")
    ours = {implementation: by_count for implementation, by_count in runs.items() if implementation.variant != RELEASED}
    by_colour = list(dict.fromkeys(implementation.variant for implementation in runs))
    for axes, plotted in zip(plot.subplots(1, 2), (runs, ours), strict=True):
        for implementation, by_count in plotted.items():
            style = {
                "color": f"C{by_colour.index(implementation.variant)}",
                "linestyle": "--" if implementation.rejection else "-",
            }
            seconds = [run.median for run in by_count.values()]
            axes.plot(list(by_count), seconds, marker="o", label=implementation.name, **style)
        axes.set(xlabel="classes", ylabel="seconds per image, words known")
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
        axes.legend()
    plot.suptitle(caption, fontsize="medium")
    return plot


def _weights(model: str) -> dict[str, Tensor]:
    released = split_checkpoint(random_weights.BUILDERS[model]())
    norm = "visual.trunk.head.norm"
    gain, bias = (released.clip[f"{norm}.{name}"] for name in ("weight", "bias"))
    tuned = {f"{norm}.weight": _GAIN * gain, f"{norm}.bias": torch.randn_like(bias)}
    return join_checkpoint(ReleasedModel(released.clip | tuned, released.decoder))


def _ours(implementation: Implementation, architecture: str, released: ReleasedModel) -> tuple[Read, Decode]:
    memory.configure_allocator()  # as the demo does
    precision = cast(Precision, implementation.variant)
    clip = HierarchicalClip(architecture, released.clip, "random", source="random", precision=precision)
    inference = OptimisedDecoder(_decoder(architecture, released), precision)
    return clip.embed_images, partial(inference, rejection=REJECTION if implementation.rejection else None)


def _released(implementation: Implementation, architecture: str, released: ReleasedModel) -> tuple[Read, Decode]:
    clip = build_convnext_clip(architecture, released.clip, "random")
    tower: Any = clip.visual  # a TimmModel
    decoder = _decoder(architecture, released)
    return partial(hierarchical_features, tower), partial(
        _decode_with_rejection if implementation.rejection else _decode_all, decoder
    )


def _decoder(architecture: str, released: ReleasedModel) -> Decoder:
    decoder = Decoder(ARCHITECTURES[architecture]).requires_grad_(False)
    decoder.load_state_dict(released.decoder)
    return decoder


def _decode_all(decoder: Decoder, cost: Tensor, skips: Sequence[Tensor]) -> DecoderOutput:
    logits = tuple(stage[0] for stage in decoder(cost[None], [skip[None] for skip in skips]))
    return DecoderOutput(logits, (torch.arange(len(cost)),) * len(logits))


def _decode_with_rejection(decoder: Decoder, cost: Tensor, skips: Sequence[Tensor]) -> DecoderOutput:
    hints = [cost]
    for project in decoder.cost_skips:
        hints.append(project(hints[-1]).relu())
    hints, x = hints[1:], decoder.embed(cost)
    logits, kept = [decoder.heads[0](x)[:, 0]], [torch.arange(len(cost))]
    for index, (stage, k) in enumerate(zip(decoder.stages, REJECTION, strict=True)):
        best = logits[-1].argsort(0, descending=True)[:k]
        among = best.unique()
        x, hints = x[among], [hint[among] for hint in hints]
        x = stage(x, decoder.skips[index](skips[index][None]).relu(), hints[index])
        logits.append(decoder.heads[index + 1](x)[:, 0])
        kept.append(kept[-1][among])
    return DecoderOutput(tuple(logits), tuple(kept))


def _run(read: Read, decode: Decode, pixels: Tensor, texts: Tensor, repeats: int) -> SEDMeasurement:
    def decode_features(photo: HierarchicalFeatures) -> tuple[Tensor, DecoderOutput]:
        output = decode(cost_map(photo.dense, texts)[0], [skip[0] for skip in photo.skips])
        of_kept = output.logits[-1].sigmoid()
        probabilities = of_kept.new_zeros(len(texts), *of_kept.shape[1:])
        probabilities[output.kept_classes[-1]] = of_kept
        return probabilities, output

    def sample(result: tuple[Tensor, DecoderOutput]) -> tuple[tuple[int, ...], np.ndarray]:
        probabilities, output = result
        return tuple(map(len, output.kept_classes)), probabilities[:, ::_STEP, ::_STEP].numpy().copy()

    times, (kept_classes, probabilities) = time_repeats(lambda: read(pixels), decode_features, sample, repeats)
    return SEDMeasurement(times.reading, times.seconds, times.megabytes, kept_classes, probabilities)


def _likeness(run: SEDMeasurement, base: SEDMeasurement) -> tuple[float, float]:
    both = (run.probabilities != 0) & (base.probabilities != 0)
    difference = np.abs(run.probabilities - base.probabilities)[both].max()
    return difference, (run.probabilities.argmax(0) == base.probabilities.argmax(0)).mean()
