"""Seconds and memory of SED, beside the way of its release, against the number of classes.

The release decodes all classes at once in float32, repeating image features for every class. Its early rejection first
makes the cost map's part of every stage for all classes, then drops classes. Both are done here with plain layers and
the same (random) weights; what is compared goes from a photo's pixels to probabilities, the words being known.

How much early rejection saves depends on how many classes it keeps, and with weights that are random all through it
keeps nearly all: a random image tower finds any two places of a photo as different as two photos. Here the gain of its
last norm is small and its bias is random, so that the cosines of a photo with words are spread as a trained CLIP's:
0.2 +- 0.04, by word more than by place. The table tells how many classes were kept.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from eval.benchmark import random_weights
from eval.benchmark.paired_timing import RELEASED, Times, conditions, timed, ways
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
from ovseg_demo.render import export
from ovseg_demo.runtime import memory
from ovseg_demo.weights import reading

MODELS = {"sed-convnext-b": "convnext_base_w_320", "sed-convnext-l": "convnext_large_d_320"}
"""By catalogue id, open_clip's name of the CLIP."""

COUNTS = (20, 150, 459, 847)
REJECTION = (8, 8, 8)
"""The k of SED's published numbers with early rejection."""

_GAIN = 0.1  # of the last norm of the image tower
_COMMON, _SHARED = 0.2, 0.9  # cosine of a text with what all texts share; weight of the word in what they do not
_STEP = 8  # every so many places, both ways, probabilities are compared

Read = Callable[[Tensor], HierarchicalFeatures]
Decode = Callable[[Tensor, Sequence[Tensor]], DecoderOutput]


@dataclass(frozen=True)
class Contender:
    """A way to run SED: RELEASED or a precision of ours, with early rejection or without."""

    way: str
    rejection: bool

    @property
    def name(self) -> str:
        return f"{self.way}, early rejection" if self.rejection else self.way


@dataclass(frozen=True)
class Run(Times):
    """A contender with one number of classes, from pixels to probabilities.

    Attributes:
        kept: how many classes there are, and how many entered each of the three stages.
        probabilities: at some places, float32 (T, h, w); 0 for classes that were rejected.
    """

    kept: tuple[int, ...]
    probabilities: np.ndarray


Runs = dict[Contender, dict[int, Run]]
"""By number of classes."""


def report(model: str, counts: Sequence[int], repeats: int, photo: Path, out: Path) -> str:
    """Measure, write sed.md and sed.png into `out`, and return the Markdown.

    The way of the release needs some 20 MB a class. Raises BenchmarkError when there is less, ImageError when `out`
    cannot be written.
    """
    export.check_writable(out)
    runs: Runs = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as name:
        folder = Path(name)
        alone(write_weights, model, folder)
        for contender in (Contender(way, rejection) for rejection in (False, True) for way in ways()):
            print(f"{contender.name} …", file=sys.stderr, flush=True)
            runs[contender] = alone(contend, contender, model, folder, photo, counts, repeats)
    about = f"{model}, random weights, {photo.name} at 768 x 768, {conditions(repeats)}."
    text = f"{about}\n\n{compared(runs)}"
    (out / "sed.md").write_text(f"{text}\n", encoding="utf-8")
    figure(runs, about).savefig(out / "sed.png", dpi=120)
    return text


def write_weights(model: str, folder: Path) -> None:
    """Random weights, and the direction that the image tower finds everywhere."""
    random_weights.write(partial(_weights, model), folder / "weights.pth")
    clip = build_convnext_clip(
        MODELS[model], split_checkpoint(reading.read_weights(folder / "weights.pth")).clip, model
    )
    with torch.no_grad():
        save_file({"common": clip.visual.head(clip.visual.trunk.head.norm.bias)}, folder / "common.safetensors")


def contend(
    contender: Contender, model: str, folder: Path, photo: Path, counts: Sequence[int], repeats: int
) -> dict[int, Run]:
    """Run a contender in this process, after a warm-up."""
    released = split_checkpoint(reading.read_weights(folder / "weights.pth"))
    read, decode = (_released if contender.way == RELEASED else _ours)(contender, MODELS[model], released)
    common = load_file(folder / "common.safetensors")["common"]
    pixels = preprocess_square(image.load(photo).pixels)
    _run(read, decode, pixels, words(2, common), 1)
    return {count: _run(read, decode, pixels, words(count, common), repeats) for count in counts}


def words(count: int, common: Tensor, prompts: int = 80) -> Tensor:
    """Random texts, unit vectors (count, prompts, D), each like `common` (D,) as CLIP's texts are like its photos."""
    rng = torch.Generator().manual_seed(0)
    own, prompted = (torch.randn(count, number, len(common), generator=rng) for number in (1, prompts))
    apart = F.normalize(_SHARED * own + (1 - _SHARED**2) ** 0.5 * prompted, dim=-1)
    return F.normalize(_COMMON * F.normalize(common, dim=0) + (1 - _COMMON**2) ** 0.5 * apart, dim=-1)


def compared(runs: Runs) -> str:
    """A row for each number of classes and contender.

    "Difference" is the largest of a probability from the way of the release, with early rejection or without as the
    contender has it, among the classes that both keep; "same label" the share of places with the same likeliest class.
    """
    rows = []
    for count in next(iter(runs.values())):
        full, rejecting = (runs[Contender(RELEASED, rejection)][count] for rejection in (False, True))
        for contender, by_count in runs.items():
            run = by_count[count]
            difference, same = _likeness(run, rejecting if contender.rejection else full)
            rows.append(
                [
                    str(count),
                    contender.name,
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
    faster = [f"times faster than {Contender(RELEASED, rejection).name}" for rejection in (False, True)]
    head = ["classes", "", "s / image", "image tower, s", *faster, "peak memory, MB", "classes kept"]
    return table([*head, "difference", "same label"], rows)


def figure(runs: Runs, about: str) -> Figure:
    """Seconds an image against the number of classes, of all contenders and, larger, of ours."""
    drawn = Figure(figsize=(12, 5.5), layout="constrained")
    ours = {contender: by_count for contender, by_count in runs.items() if contender.way != RELEASED}
    by_colour = list(dict.fromkeys(contender.way for contender in runs))
    for axes, shown in zip(drawn.subplots(1, 2), (runs, ours), strict=True):
        for contender, by_count in shown.items():
            style = {"color": f"C{by_colour.index(contender.way)}", "linestyle": "--" if contender.rejection else "-"}
            seconds = [run.median for run in by_count.values()]
            axes.plot(list(by_count), seconds, marker="o", label=contender.name, **style)
        axes.set(xlabel="classes", ylabel="seconds per image, words known")
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
        axes.legend()
    drawn.suptitle(about, fontsize="medium")
    return drawn


def _weights(model: str) -> dict[str, Tensor]:
    released = split_checkpoint(random_weights.BUILDERS[model]())
    norm = "visual.trunk.head.norm"
    gain, bias = (released.clip[f"{norm}.{name}"] for name in ("weight", "bias"))
    tuned = {f"{norm}.weight": _GAIN * gain, f"{norm}.bias": torch.randn_like(bias)}
    return join_checkpoint(ReleasedModel(released.clip | tuned, released.decoder))


def _ours(contender: Contender, architecture: str, released: ReleasedModel) -> tuple[Read, Decode]:
    memory.configure_allocator()  # as the demo does
    clip = HierarchicalClip(architecture, released.clip, "random", source="random", precision=contender.way)
    inference = OptimisedDecoder(_decoder(architecture, released), contender.way)
    return clip.read, partial(inference, rejection=REJECTION if contender.rejection else None)


def _released(contender: Contender, architecture: str, released: ReleasedModel) -> tuple[Read, Decode]:
    clip = build_convnext_clip(architecture, released.clip, "random")
    decoder = _decoder(architecture, released)
    return partial(hierarchical_features, clip.visual), partial(_rejecting if contender.rejection else _whole, decoder)


def _decoder(architecture: str, released: ReleasedModel) -> Decoder:
    decoder = Decoder(ARCHITECTURES[architecture]).requires_grad_(False)
    decoder.load_state_dict(released.decoder)
    return decoder


def _whole(decoder: Decoder, cost: Tensor, skips: Sequence[Tensor]) -> DecoderOutput:
    logits = tuple(each[0] for each in decoder(cost[None], [skip[None] for skip in skips]))
    return DecoderOutput(logits, (torch.arange(len(cost)),) * len(logits))


def _rejecting(decoder: Decoder, cost: Tensor, skips: Sequence[Tensor]) -> DecoderOutput:
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


def _run(read: Read, decode: Decode, pixels: Tensor, texts: Tensor, repeats: int) -> Run:
    def decoded(photo: HierarchicalFeatures) -> tuple[Tensor, DecoderOutput]:
        made = decode(cost_map(photo.dense, texts)[0], [skip[0] for skip in photo.skips])
        found = made.logits[-1].sigmoid()
        probabilities = found.new_zeros(len(texts), *found.shape[1:])
        probabilities[made.kept[-1]] = found
        return probabilities, made

    def kept(found: tuple[Tensor, DecoderOutput]) -> tuple[tuple[int, ...], np.ndarray]:
        probabilities, made = found
        return tuple(map(len, made.kept)), probabilities[:, ::_STEP, ::_STEP].numpy().copy()

    times, sample = timed(lambda: read(pixels), decoded, kept, repeats)
    return Run(*astuple(times), *sample)


def _likeness(run: Run, base: Run) -> tuple[float, float]:
    both = (run.probabilities != 0) & (base.probabilities != 0)
    difference = np.abs(run.probabilities - base.probabilities)[both].max()
    return difference, (run.probabilities.argmax(0) == base.probabilities.argmax(0)).mean()
