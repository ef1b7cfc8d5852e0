"""Seconds and memory per image against the number of classes: the figure of SED (Xie et al., CVPR 2024).

Each method runs in a process of its own. Image stages are computed for every photo, while text embeddings are cached,
as when a vocabulary is used for many images; the seconds for computing the text embeddings once are a separate number.
Methods whose weights are missing run on random weights, and every table and figure says so.
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
"""A handful of classes, then the vocabulary sizes of VOC, PASCAL-Context and ADE20K, and of the large vocabularies of
PASCAL-Context and ADE20K."""

_PROBE_STEP = 8


@dataclass(frozen=True)
class Point:
    """The measurement of a method with one number of classes.

    Attributes:
        classes: the number of classes.
        seconds: for each photo the seconds from pixels to labels, with cached text embeddings.
        stages: for each photo the part of these seconds in each named stage.
        words: seconds for computing the text embeddings once.
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
        """Median seconds by stage, and the median of the seconds outside all stages."""
        rests = [total - sum(stages.values()) for total, stages in zip(self.seconds, self.stages, strict=True)]
        medians = {name: statistics.median(stages[name] for stages in self.stages) for name in self.stages[0]}
        return {**medians, "the rest": statistics.median(rests)}


@dataclass(frozen=True)
class Curve:
    """The measurements of a method with several numbers of classes.

    Attributes:
        method: id of the method.
        random: names of the weight files that were replaced by random weights.
        points: a measurement for each number of classes.
    """

    method: str
    random: list[str]
    points: list[Point]

    @property
    def label(self) -> str:
        """The name of the method in the legend."""
        return f"{self.method} (random weights)" if self.random else self.method


def report(
    entries: Sequence[MethodSpec],
    counts: Sequence[int],
    photos: Sequence[Path],
    options: Mapping[str, MethodOptions],
    out: Path,
) -> str:
    """Measure, write methods.md, methods.json and methods.png into `out`, and return the Markdown.

    The files are written again after every method, so that an interruption costs one method only. A method that cannot
    be measured is reported and left out.

    Args:
        entries: the methods.
        counts: numbers of classes.
        photos: paths of the photos.
        options: options of each method by its id.
        out: folder of the files.

    Raises:
        BenchmarkError: when no method can be measured.
        ImageError: when `out` cannot be written.
    """
    export.check_writable(out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    conditions = {
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
            text = markdown(curves, skipped, conditions)
            write(out, text, curves, skipped, conditions)
    if not curves:
        raise BenchmarkError(f"No method could be measured. {' '.join(skipped.values())}")
    return text


def curve(
    entry: MethodSpec, counts: Sequence[int], photos: Sequence[Path], options: MethodOptions, device: str
) -> Curve:
    """Measure a method in a fresh process.

    Args:
        entry: the method.
        counts: numbers of classes.
        photos: paths of the photos.
        options: options of the method.
        device: "cpu" or "cuda".

    Raises:
        CheckpointError: when a missing weight file cannot be replaced.
        BenchmarkError: when the process was killed.
    """
    missing = [checkpoint.file for checkpoint in entry.missing()]
    with random_weights.completed(entry) as folder:
        # Text embeddings are cached on disk too; those of random weights must not get into the user's cache.
        variables = {random_weights.VARIABLE: str(folder), text_cache.CACHE_VARIABLE: str(folder / "words")}
        return Curve(
            entry.id, missing, alone(measure, entry.id, counts, photos, options, device, environment=variables)
        )


def measure(
    method: str, counts: Sequence[int], photos: Sequence[Path], options: MethodOptions, device: str
) -> list[Point]:
    """Measure a method in this process, after loading it; arguments as for `curve`, with the id of the method."""
    engine, pictures = Engine(device), [image.load(path) for path in photos]
    engine.load(method)
    _segmented(engine, _probe(pictures[0]), prefix(1), method, options)  # a warm-up
    return [_point(engine, pictures, prefix(n), method, options) for n in tqdm(counts, desc=method, disable=None)]


def prefix(count: int) -> Vocabulary:
    """A vocabulary of the first `count` classes of ADE20K-847, without synonyms."""
    return Vocabulary(NAMES[:count], ((),) * count)


def markdown(curves: Sequence[Curve], skipped: dict[str, str], conditions: dict[str, Any]) -> str:
    """The conditions, and a table with a row for each method and number of classes.

    Args:
        curves: the measurements of each method.
        skipped: why a method is left out, by its id.
        conditions: the conditions of the measurements, as in methods.json.
    """
    rows = []
    for measured in curves:
        for point in measured.points:
            parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in point.parts().items())
            row = [
                measured.method,
                "random weights" if measured.random else "real",
                str(point.classes),
                f"{point.median:.2f}",
            ]
            rows.append([*row, f"{point.words:.2f}", f"{point.megabytes:.0f}", parts])
    head = ["method", "weights", "classes", "s / image", "words once, s", "peak memory, MB", "of the seconds"]
    left_out = [f"- {method} is left out: {why}" for method, why in skipped.items()]
    return "\n\n".join([_circumstances(conditions), table(head, rows), *(["\n".join(left_out)] if left_out else [])])


def figure(curves: Sequence[Curve], conditions: dict[str, Any]) -> Figure:
    """Three plots against the number of classes: seconds per image, seconds for text embeddings, and memory.

    Args:
        curves: the measurements of each method.
        conditions: the conditions of the measurements, as in methods.json.
    """
    drawn = Figure(figsize=(14, 5.5), layout="constrained")
    panels = {
        "seconds per image, words known": lambda point: point.median,
        "seconds to read the words, once": lambda point: point.words,
        "peak memory of the process on the host, MB": lambda point: point.megabytes,
    }
    counts = sorted({point.classes for measured in curves for point in measured.points})
    grid = drawn.subplots(1, len(panels))
    for axes, (title, value) in zip(grid, panels.items(), strict=True):
        for measured in curves:
            style = {"linestyle": "--" if measured.random else "-", "marker": "o", "label": measured.label}
            axes.plot([p.classes for p in measured.points], [value(p) for p in measured.points], **style)
        axes.set(title=title, xlabel="classes", xscale="log")
        axes.set_xticks(counts, map(str, counts))
        axes.minorticks_off()
        axes.set_ylim(0, 1.08 * max(value(point) for measured in curves for point in measured.points))
        axes.grid(alpha=0.3)
    drawn.suptitle(_circumstances(conditions), fontsize="medium")
    drawn.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(curves)))
    return drawn


def write(out: Path, text: str, curves: Sequence[Curve], skipped: dict[str, str], conditions: dict[str, Any]) -> None:
    """Write methods.md, methods.json and methods.png.

    Args:
        out: folder of the files.
        text: see `markdown`.
        curves: the measurements of each method.
        skipped: why a method is left out, by its id.
        conditions: the conditions of the measurements.
    """
    content = {**conditions, "methods": [asdict(measured) for measured in curves], "skipped": skipped}
    (out / "methods.md").write_text(f"{text}\n", encoding="utf-8")
    (out / "methods.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    figure(curves, conditions).savefig(out / "methods.png", dpi=120)


def _point(engine: Engine, pictures: Sequence[Photo], words: Vocabulary, method: str, options: MethodOptions) -> Point:
    engine.cache = Cache(CACHE_BYTES)  # no photo and no word is known
    shutil.rmtree(text_cache.cache_folder(), ignore_errors=True)
    first, _ = _segmented(engine, _probe(pictures[0]), words, method, options)
    reset_peak()
    runs = [_segmented(engine, picture, words, method, options) for picture in pictures]
    megabytes = peak()
    # Stages that run for the probe and for no photo after it depend on the words alone.
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
    """The seconds of each stage, and the seconds of the whole segmentation."""
    start = time.perf_counter()
    result = engine.segment(photo, words, method, options)
    return dict(result.timings), time.perf_counter() - start


def _probe(photo: Photo) -> Photo:
    """A small version of a photo, which is segmented quickly."""
    return image.from_array(photo.pixels[::_PROBE_STEP, ::_PROBE_STEP])


def _circumstances(conditions: dict[str, Any]) -> str:
    """The conditions of the measurements in one sentence."""
    place, options = conditions["environment"], conditions["options"]
    where = place["accelerator"] or f"{place['processor']}, {conditions['threads']} threads"
    photos = f"{len(conditions['photos'])} photo{'s' * (len(conditions['photos']) > 1)}"
    searches = dict.fromkeys(of_method["proposals"] for of_method in options.values() if "proposals" in of_method)
    search = f", proposals '{' and '.join(searches)}'" if searches else ""
    return f"Medians over {photos}{search}, on {where}."
