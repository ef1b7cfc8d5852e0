"""Measure how methods fare with words that are not in the photo.

    python -m eval.absent_words --root SET [--dataset folder] [--part held-out] --method mini-dense

For each photo of a labelled data set a method is asked for three vocabularies: the photo's own words and as many absent
ones, the same without one of its own words, and the absent words alone. Each run has a folder of its own,
OUT/SET/METHOD-SETTINGS, with report.json, report.md and reliability.png. The same command goes on where it was
interrupted.
"""

import argparse
import io
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eval import environment, run_arguments, runner
from eval.absent_words import report
from eval.absent_words.measurement import Asker, PhotoRecord
from eval.datasets.base import Dataset
from eval.journal import Journal, read, write_atomically
from ovseg_demo.engine import Engine
from ovseg_demo.errors import exit_status
from ovseg_demo.methods import command_line, registry
from ovseg_demo.methods.options import MethodOptions

_CODE = tuple(f"eval/absent_words/{name}.py" for name in ("measurement", "reliability", "vocabularies"))
"""The files that the records of photos depend on, beside those of `eval.evaluate`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, or 2 for unusable arguments."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(typed)
    return exit_status(
        lambda: _run(parsed, "python -m eval.absent_words " + shlex.join(typed)),
        "Interrupted; finished photos are kept, and the same command goes on from there.",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval.absent_words", description=str(__doc__).splitlines()[0])
    run_arguments.add_arguments(parser, out="runs/absent_words", dataset="folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the vocabularies (default: %(default)s)")
    return parser


def _run(arguments: argparse.Namespace, command: str) -> int:
    for method in arguments.method:
        registry.available(method)  # fails before an hour is spent on other methods
    options_of = command_line.options_by_method(arguments.method, command_line.given_values(arguments))
    dataset = run_arguments.open_part(arguments)
    limited = replace(dataset, samples=dataset.samples[: arguments.limit])
    torch.set_num_threads(arguments.threads)
    device = Engine(arguments.device).device
    folder = arguments.out / arguments.root.resolve().name
    reports = []
    for method in dict.fromkeys(arguments.method):
        settings = {
            **environment.settings(dataset, method, options_of[method], device, arguments.threads, _CODE),
            "seed": arguments.seed,
        }
        run = folder / f"{method}-{environment.digest(settings)}"
        _measure(limited, method, options_of[method], device, arguments.seed, run)
        records, failures = runner.collect_records(limited, run, PhotoRecord.of_fields)
        description = {**settings, "set": folder.name, "part": arguments.part, "limit": arguments.limit}
        machine = environment.environment(device, processes=1)
        reports.append(report.report_content(records, failures, limited, description, machine, command))
        _write(run, reports[-1])
    table = report.comparison(reports)
    print(table)
    if len(reports) > 1:
        write_atomically(folder / "comparison.md", f"{table}\n".encode())
    return int(any(content["failures"] for content in reports))


def _measure(dataset: Dataset, method: str, options: MethodOptions, device: str, seed: int, run: Path) -> None:
    """Measure the photos that the journal of the run does not hold yet."""
    finished, _ = read(run, PhotoRecord.of_fields)
    journal = Journal(run, process=0)
    engine = Engine(device)  # an engine a method, so that only one method's models are in memory
    longest_side = registry.get(method).longest_side
    runner.record_samples(
        dataset.samples,
        finished,
        journal,
        load=lambda sample: runner.load_sample(dataset, sample, longest_side),
        measure=Asker(engine, dataset, method, options, seed).measure,
        title=method,
    )


def _write(run: Path, content: dict[str, Any]) -> None:
    """Write report.json, report.md and the diagrams."""
    picture = io.BytesIO()
    report.diagrams(content).savefig(picture, format="png", dpi=100)
    write_atomically(run / report.DIAGRAM, picture.getvalue())
    write_atomically(run / "report.json", json.dumps(content, indent=1, allow_nan=False).encode())
    write_atomically(run / "report.md", report.markdown(content).encode("utf-8", "replace"))
    print(run / "report.md", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
