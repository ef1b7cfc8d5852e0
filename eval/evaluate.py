"""Evaluate methods on a benchmark.

    python -m eval.evaluate --dataset voc_20 --root PATH --method ovseg-sam-mini
    accelerate launch --multi_gpu --num_processes 2 -m eval.evaluate --dataset voc_20 --root PATH

Each run has a folder of its own, OUT/DATASET/METHOD-SETTINGS, which holds every finished image, report.json, report.md
and samples.html. The same command goes on where it was interrupted. Any number of processes gives the same counts.
With --multi_gpu, accelerate starts several processes on a machine without any GPU too; with --cpu it starts one.
"""

import argparse
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
from eval.journal import Record, write_atomically
from ovseg_demo.engine import Engine, check_device
from ovseg_demo.errors import exit_status
from ovseg_demo.methods import command_line, registry
from ovseg_demo.models import factory

_TIMEOUT = timedelta(days=7)
"""How long a process waits for slower processes; the default of half an hour would end long runs."""


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
    parser = argparse.ArgumentParser(prog="python -m eval.evaluate", description=str(__doc__).splitlines()[0])
    run_arguments.add_arguments(parser, out="runs/evaluate")
    parser.add_argument(
        "--samples", type=run_arguments.count, default=3, metavar="N", help="best, median and worst images shown"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState, command: str) -> int:
    for method in arguments.method:
        registry.available(method)  # fails before an hour is spent on other methods
    dataset = run_arguments.open_part(arguments)
    options_of = protocol.options_by_method(arguments.method, command_line.given_values(arguments), dataset)
    limited = replace(dataset, samples=dataset.samples[: arguments.limit])
    wording = arguments.vocabulary or datasets.DATASETS[arguments.dataset].publisher or "the folder's own"
    machine = environment.environment(arguments.device, state.num_processes)
    torch.set_num_threads(arguments.threads)
    similarities = open_iou.text_similarities(dataset, factory.create_model(open_iou.MODEL))
    reports = []
    for method in dict.fromkeys(arguments.method):
        options = options_of[method]
        settings = environment.settings(dataset, method, options, arguments.device, arguments.threads)
        folder = arguments.out / dataset.name / f"{method}-{environment.digest(settings)}"
        engine = Engine(arguments.device)  # an engine a method, so that only one method's models are in memory
        longest_side = registry.get(method).longest_side
        runner.evaluate(
            engine, limited, method, options, folder, state.process_index, state.num_processes, longest_side
        )
        state.wait_for_everyone()
        if state.is_main_process:
            evaluation = runner.collect(limited, folder)
            description = {
                **settings,
                "benchmark": datasets.DATASETS[dataset.name].title,
                "vocabulary": wording,
                "part": arguments.part,
                "limit": arguments.limit,
            }
            reports.append(report.report_content(evaluation, limited, similarities, description, machine, command))
            groups = samples_page.select_samples(evaluation.records, arguments.samples)
            _write(folder, reports[-1], limited, groups, runner.Predictor(engine, limited, method, options))
    if not state.is_main_process:
        return 0
    table = report.comparison(reports)
    print(table)
    if len(reports) > 1:
        write_atomically(arguments.out / dataset.name / "comparison.md", f"{table}\n".encode())
    failed = any(content["failures"] for content in reports)
    return int(failed and state.num_processes == 1)  # a launcher would take the exit status of a failure for a crash


def _write(
    folder: Path, content: dict[str, Any], dataset: Dataset, groups: dict[str, list[Record]], predict: runner.Predictor
) -> None:
    """Write report.json, report.md and samples.html."""
    write_atomically(folder / "report.json", json.dumps(content, indent=1, allow_nan=False).encode())
    write_atomically(folder / "report.md", report.markdown(content).encode("utf-8", "replace"))
    title = f"{content['settings']['method']} on {dataset.name}"
    page = samples_page.write_page(folder, title, dataset, groups, predict)
    print(f"{folder / 'report.md'}, {page}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
