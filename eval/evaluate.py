"""Evaluate methods on a benchmark.

    python -m eval.evaluate --dataset voc_20 --root PATH --method ovseg-sam-mini
    accelerate launch --multi_gpu --num_processes 2 -m eval.evaluate --dataset voc_20 --root PATH

Each run has a folder of its own, OUT/DATASET/METHOD-SETTINGS, which holds every finished image, report.json, report.md
and samples.html. The same command goes on where it was interrupted. Any number of processes gives the same counts.
With --multi_gpu, accelerate starts several processes on a machine without any GPU too; with --cpu it starts one.
"""

import argparse
import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from eval import datasets, environment, open_iou, protocol, report, run_arguments, runner, samples_page
from eval.datasets.base import Dataset
from eval.journal import write_atomically
from eval.sweep import measurement as sweep_measurement
from eval.sweep import report as sweep_report
from eval.sweep.measurement import SweepRecord
from ovseg_demo.engine import Engine, check_device
from ovseg_demo.errors import exit_status
from ovseg_demo.methods import command_line, registry
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.models import factory

_TIMEOUT = timedelta(days=7)
"""How long a process waits for slower processes; the default of half an hour would end long runs."""

_VALUES = """In place of its value, an option may be given 'published': what was published for the benchmark, which is
OVSeg's weight of CLIP (--ensemble) and SegCLIP's threshold (--background). Of SegCLIP it is the threshold of the
released code, because the scores are those of that code: 0.80 on voc_21, where the paper says 0.75; 0.25 on context_60
and 0.65 on coco_object_81, where both agree. An option that is a number between two limits may be given 'sweep': one
pass over the images gives the scores at steps of 0.05 and at the published value."""
"""Shown below the options of methods."""

_About = tuple[dict[str, Any], dict[str, Any], str]
"""Of a run: its settings, its machine and its command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, or 2 for unusable arguments."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(typed)
    return exit_status(
        lambda: _launched(parsed, "python -m eval.evaluate " + shlex.join(typed)),
        "Interrupted; finished images are kept, and the same command goes on from there.",
    )


def _launched(arguments: argparse.Namespace, command: str) -> int:
    """Run as one of the launcher's processes."""
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)  # accelerate would fall back to the CPU without a word
    state = PartialState(cpu=not device.startswith("cuda"), timeout=_TIMEOUT)
    arguments.device = str(state.device) if device == "cuda" else device
    if state.num_processes == 1 and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys():
        print("accelerate launch --cpu starts one process only; --multi_gpu starts several.", file=sys.stderr)
    status = _run(arguments, state, command)
    state.destroy_process_group()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.evaluate", description=str(__doc__).splitlines()[0], epilog=_VALUES
    )
    run_arguments.add_arguments(parser, out="runs/evaluate")
    parser.add_argument(
        "--samples", type=run_arguments.count, default=3, metavar="N", help="best, median and worst images shown"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState, command: str) -> int:
    for method in arguments.method:
        registry.available(method)  # fails before an hour is spent on other methods
    dataset = run_arguments.open_part(arguments)
    values = command_line.given_values(arguments)
    sweep_of = protocol.sweep_by_method(arguments.method, values, dataset)
    options_of = sweep_of or protocol.options_by_method(arguments.method, values, dataset)
    kind: Any = _Sweep() if sweep_of else _Evaluation(dataset, arguments.samples)
    limited = replace(dataset, samples=dataset.samples[: arguments.limit])
    wording = arguments.vocabulary or datasets.DATASETS[arguments.dataset].publisher or "the folder's own"
    machine = environment.environment(arguments.device, state.num_processes)
    torch.set_num_threads(arguments.threads)
    reports = []
    for method, options in options_of.items():
        settings = environment.settings(dataset, method, options, arguments.device, arguments.threads, kind.code)
        folder = arguments.out / dataset.name / f"{method}-{environment.digest(settings)}"
        engine = Engine(arguments.device)  # an engine a method, so that only one method's models are in memory
        longest_side = registry.get(method).longest_side
        kind.measure(engine, limited, method, options, folder, state.process_index, state.num_processes, longest_side)
        state.wait_for_everyone()
        if state.is_main_process:
            description = {
                **settings,
                "benchmark": datasets.DATASETS[dataset.name].title,
                "vocabulary": wording,
                "part": arguments.part,
                "limit": arguments.limit,
            }
            about = description, machine, command
            reports.append(kind.report(engine, limited, method, options, folder, about))
    if not state.is_main_process:
        return 0
    print(kind.table(reports))
    if len(reports) > 1:
        write_atomically(arguments.out / dataset.name / kind.comparison, f"{kind.table(reports)}\n".encode())
    failed = any(content["failures"] for content in reports)
    return int(failed and state.num_processes == 1)  # a launcher would take the exit status of a failure for a crash


class _Evaluation:
    """Methods with one value for each option.

    Args:
        dataset: the benchmark.
        samples: number of the best, of the median and of the worst images that are shown.
    """

    code, comparison = (), "comparison.md"
    measure, table = staticmethod(runner.evaluate), staticmethod(report.comparison)

    def __init__(self, dataset: Dataset, samples: int) -> None:
        self._similarities = open_iou.text_similarities(dataset, factory.create_model(open_iou.MODEL))
        self._samples = samples

    def report(
        self, engine: Engine, dataset: Dataset, method: str, options: MethodOptions, folder: Path, about: _About
    ) -> dict[str, Any]:
        """The content of the report of a run, after it is written."""
        evaluation = runner.collect(dataset, folder)
        content = report.report_content(evaluation, dataset, self._similarities, *about)
        _write(folder, content, report.markdown(content))
        groups = samples_page.select_samples(evaluation.records, self._samples)
        predict = runner.Predictor(engine, dataset, method, options)
        page = samples_page.write_page(folder, f"{method} on {dataset.name}", dataset, groups, predict)
        print(f"{folder / 'report.md'}, {page}", file=sys.stderr)
        return content


class _Sweep:
    """Methods with many values of one option."""

    code, comparison = sweep_measurement.CODE, "sweep.md"
    measure, table = staticmethod(sweep_measurement.measure), staticmethod(sweep_report.tables)

    def report(
        self, engine: Engine, dataset: Dataset, method: str, options: protocol.Sweep, folder: Path, about: _About
    ) -> dict[str, Any]:
        """The content of the report of a run, after it is written."""
        records, failures = runner.collect_records(dataset, folder, SweepRecord)
        content = sweep_report.report_content(records, failures, dataset, options, *about)
        picture = io.BytesIO()
        sweep_report.plot(content).savefig(picture, format="png", dpi=100)
        write_atomically(folder / sweep_report.PLOT, picture.getvalue())
        _write(folder, content, sweep_report.markdown(content))
        print(folder / "report.md", file=sys.stderr)
        return content


def _write(folder: Path, content: dict[str, Any], markdown: str) -> None:
    """Write report.json and report.md."""
    write_atomically(folder / "report.json", json.dumps(content, indent=1, allow_nan=False).encode())
    write_atomically(folder / "report.md", markdown.encode("utf-8", "replace"))


if __name__ == "__main__":
    sys.exit(main())
