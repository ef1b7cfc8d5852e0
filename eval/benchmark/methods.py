"""Seconds and memory per image against the number of classes: the figure of SED (Xie et al., CVPR 2024).

Each method runs in a process of its own. Its image stages start from nothing, while the words are known, as when a
vocabulary is used for many images; what reading the words costs once is told separately. Methods whose weights are not
here run on random ones, and every table and figure says so.
"""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from eval import class_names, environment
from eval.benchmark import random_weights
from eval.benchmark.process import BenchmarkError, alone, peak, reset_peak
from eval.markdown import table
from ovseg_demo import image
from ovseg_demo.engine import CACHE_BYTES, Engine
from ovseg_demo.errors import UserError
from ovseg_demo.image import Photo
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.models import text_cache
from ovseg_demo.render import export
from ovseg_demo.runtime.stages import Cache
from ovseg_demo.vocabulary import Vocabulary

NAMES = class_names.load_class_names("ade20k_847.ovseg").names
CLASSES = (10, 20, 59, 150, 459, len(NAMES))
"""A handful, then the vocabularies of VOC, PASCAL-Context, ADE20K, and the large ones of the last two."""

_PROBE_STEP = 8


@dataclass(frozen=True)
class Point:
    """A method with one number of classes.

    Attributes:
        classes: how many.
        seconds: of each photo, from its pixels to its labels, the words being known.
        stages: of each photo, the part of these seconds in each named stage.
        words: seconds to read the words, once.
        megabytes: peak resident memory of the process over the photos, the model included.
    """

    classes: int
    seconds: list[float]
    stages: list[dict[str, float]]
    words: float
    megabytes: float

    @property
    def median(self) -> float:
        """Median seconds a photo."""
        return statistics.median(self.seconds)

    def parts(self) -> dict[str, float]:
        """Median seconds by stage, and of what lies outside all stages."""
        rests = [total - sum(stages.values()) for total, stages in zip(self.seconds, self.stages, strict=True)]
        medians = {name: statistics.median(stages[name] for stages in self.stages) for name in self.stages[0]}
        return {**medians, "the rest": statistics.median(rests)}


@dataclass(frozen=True)
class Curve:
    """A method over the numbers of classes; `random` names its weight files that were replaced by random ones."""

    method: str
    random: list[str]
    points: list[Point]

    @property
    def label(self) -> str:
        return f"{self.method} (random weights)" if self.random else self.method


def report(
    entries: Sequence[MethodSpec],
    counts: Sequence[int],
    photos: Sequence[Path],
    options: Mapping[str, MethodOptions],
    out: Path,
) -> str:
    """Measure, write methods.md, methods.json and methods.png into `out`, and return the Markdown.

    The files are written anew after every method, so that an interruption costs one method only. A method that cannot
    be measured is told and left out. Raises BenchmarkError when all are, ImageError when `out` cannot be written.
    """
    export.check_writable(out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = {
        "photos": [path.name for path in photos],
        "options": {method: of_method.given() for method, of_method in options.items()},
        "threads": torch.get_num_threads(),
        "environment": environment.environment(device, 1),
    }
    curves, skipped, text = [], {}, ""
    for entry in entries:
        print(f"{entry.id} …", file=sys.stderr, flush=True)
        try:
            curves.append(curve(entry, counts, photos, options[entry.id], device))
        except UserError as error:
            print(f"{entry.id} is left out: {error}", file=sys.stderr, flush=True)
            skipped[entry.id] = str(error)
        if curves:
            text = markdown(curves, skipped, about)
            write(out, text, curves, skipped, about)
    if not curves:
        raise BenchmarkError(f"No method could be measured. {' '.join(skipped.values())}")
    return text


def curve(
    entry: MethodSpec, counts: Sequence[int], photos: Sequence[Path], options: MethodOptions, device: str
) -> Curve:
    """Measure a method in a fresh process. Raises CheckpointError or BenchmarkError when it cannot be."""
    missing = [checkpoint.file for checkpoint in entry.missing()]
    with random_weights.completed(entry) as folder:
        # Words are kept on disk as well: what random weights make of them must not get among a person's own.
        there = {random_weights.VARIABLE: str(folder), text_cache.CACHE_VARIABLE: str(folder / "words")}
        return Curve(entry.id, missing, alone(measure, entry.id, counts, photos, options, device, environment=there))


def measure(
    method: str, counts: Sequence[int], photos: Sequence[Path], options: MethodOptions, device: str
) -> list[Point]:
    """Measure a method in this process, after loading it."""
    engine, pictures = Engine(device), [image.load(path) for path in photos]
    engine.load(method)
    _segmented(engine, _probe(pictures[0]), prefix(1), method, options)  # warms up what is set up at first use
    return [_point(engine, pictures, prefix(n), method, options) for n in tqdm(counts, desc=method, disable=None)]


def prefix(count: int) -> Vocabulary:
    """The first classes of ADE20K-847, a text each."""
    return Vocabulary(NAMES[:count], ((),) * count)


def markdown(curves: Sequence[Curve], skipped: dict[str, str], about: dict[str, Any]) -> str:
    """A row for each method and number of classes, and how they came about."""
    rows = []
    for each in curves:
        for point in each.points:
            parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in point.parts().items())
            row = [each.method, "random weights" if each.random else "real", str(point.classes), f"{point.median:.2f}"]
            rows.append([*row, f"{point.words:.2f}", f"{point.megabytes:.0f}", parts])
    head = ["method", "weights", "classes", "s / image", "words once, s", "peak memory, MB", "of the seconds"]
    left_out = [f"- {method} is left out: {why}" for method, why in skipped.items()]
    return "\n\n".join([_circumstances(about), table(head, rows), *(["\n".join(left_out)] if left_out else [])])


def figure(curves: Sequence[Curve], about: dict[str, Any]) -> Figure:
    """Seconds an image, seconds for the words and memory, each against the number of classes."""
    drawn = Figure(figsize=(14, 5.5), layout="constrained")
    panels = {
        "seconds per image, words known": lambda point: point.median,
        "seconds to read the words, once": lambda point: point.words,
        "peak memory of the process on the host, MB": lambda point: point.megabytes,
    }
    counts = sorted({point.classes for each in curves for point in each.points})
    grid = drawn.subplots(1, len(panels))
    for axes, (title, value) in zip(grid, panels.items(), strict=True):
        for each in curves:
            style = {"linestyle": "--" if each.random else "-", "marker": "o", "label": each.label}
            axes.plot([p.classes for p in each.points], [value(p) for p in each.points], **style)
        axes.set(title=title, xlabel="classes", xscale="log")
        axes.set_xticks(counts, map(str, counts))
        axes.minorticks_off()
        axes.set_ylim(0, 1.08 * max(value(point) for each in curves for point in each.points))
        axes.grid(alpha=0.3)
    drawn.suptitle(_circumstances(about), fontsize="medium")
    drawn.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(curves)))
    return drawn


def write(out: Path, text: str, curves: Sequence[Curve], skipped: dict[str, str], about: dict[str, Any]) -> None:
    """Write methods.md, methods.json and methods.png."""
    content = {**about, "methods": [asdict(each) for each in curves], "skipped": skipped}
    (out / "methods.md").write_text(f"{text}\n", encoding="utf-8")
    (out / "methods.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    figure(curves, about).savefig(out / "methods.png", dpi=120)


def _point(engine: Engine, pictures: Sequence[Photo], words: Vocabulary, method: str, options: MethodOptions) -> Point:
    engine.cache = Cache(CACHE_BYTES)  # no photo and no word is known
    shutil.rmtree(text_cache.cache_folder(), ignore_errors=True)
    first, _ = _segmented(engine, _probe(pictures[0]), words, method, options)
    reset_peak()
    runs = [_segmented(engine, picture, words, method, options) for picture in pictures]
    megabytes = peak()
    # What the probe had to make and no photo after it is what depends on the words alone.
    once = {stage for stage in first if not any(stages.get(stage) for stages, _ in runs)}
    return Point(
        classes=len(words),
        seconds=[seconds for _, seconds in runs],
        stages=[{name: value for name, value in stages.items() if name not in once} for stages, _ in runs],
        words=sum(first[stage] for stage in once),
        megabytes=megabytes,
    )


def _segmented(
    engine: Engine, photo: Photo, words: Vocabulary, method: str, options: MethodOptions
) -> tuple[dict[str, float], float]:
    """Seconds by stage, and of all."""
    start = time.perf_counter()
    result = engine.segment(photo, words, method, options)
    return dict(result.timings), time.perf_counter() - start


def _probe(photo: Photo) -> Photo:
    """A small picture that is quickly segmented but has something in it."""
    return image.from_array(photo.pixels[::_PROBE_STEP, ::_PROBE_STEP])


def _circumstances(about: dict[str, Any]) -> str:
    """One sentence."""
    place, options = about["environment"], about["options"]
    where = place["accelerator"] or f"{place['processor']}, {about['threads']} threads"
    photos = f"{len(about['photos'])} photo{'s' * (len(about['photos']) > 1)}"
    searches = dict.fromkeys(of_method["proposals"] for of_method in options.values() if "proposals" in of_method)
    search = f", proposals '{' and '.join(searches)}'" if searches else ""
    return f"Medians over {photos}{search}, on {where}."
