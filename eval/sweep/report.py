"""The report of a sweep as JSON, and as Markdown with a table and a plot. Shares are in [0, 1] in JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from eval.datasets.base import Dataset
from eval.journal import Failure
from eval.markdown import table
from eval.metrics import GROUND_TRUTH, UNION
from eval.protocol import Sweep
from eval.report import RULE_TITLES, closing_parts, json_value, percent
from eval.sweep.measurement import SweepRecord, scores

PLOT = "sweep.png"
"""Name of the file with the plot."""


def report_content(
    records: Sequence[SweepRecord],
    failures: Sequence[Failure],
    dataset: Dataset,
    sweep: Sweep,
    description: dict[str, Any],
    environment: dict[str, Any],
    command: str,
) -> dict[str, Any]:
    """The content of report.json.

    Args:
        records: of the finished images.
        failures: of the others.
        dataset: the benchmark.
        sweep: the options of the method.
        description: settings of the run, "method" and "options" among them.
        environment: the machine of the run, see `eval.environment.environment`.
        command: the command line of the run.
    """
    found = [json_value(asdict(each)) for each in scores(records, dataset, sweep.values)]
    known = [each for each in found if each["miou"][GROUND_TRUTH] is not None]
    best = max(known, key=lambda each: each["miou"][GROUND_TRUTH], default=None)
    return {
        "command": command,
        "dataset": {"name": dataset.name, "classes": len(dataset.vocabulary), "images": len(dataset)},
        "images": len(records),
        "failures": [asdict(failure) for failure in failures],
        "option": sweep.option,
        "published": sweep.published,
        "best": best and best["value"],
        "scores": found,
        "seconds": {
            "first": statistics.median([record.seconds[0] for record in records]) if records else None,
            "further": statistics.median([s for record in records for s in record.seconds[1:]]) if records else None,
        },
        "settings": description,
        "environment": environment,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report of one sweep in Markdown, which shows the plot beside it.

    Args:
        report: content of its report.json.
    """
    dataset, seconds = report["dataset"], report["seconds"]
    parts = [
        f"# {title(report)}",
        f"{report['images']} of {dataset['images']} images, {dataset['classes']} classes, in one pass.",
        f"```sh\n{report['command']}\n```",
        "## Scores",
        score_table(report),
        f"![Scores against the value of {report['option']}]({PLOT})",
    ]
    if report["images"]:
        times = f"{seconds['first']:.3f} seconds for the first value, {seconds['further']:.3f} for each further one."
        parts.append(f"Medians over the images, counting included: {times}")
    return "\n\n".join([*parts, *closing_parts(report)]) + "\n"


def title(report: dict[str, Any]) -> str:
    """What was swept, of which method, on which benchmark."""
    return f"{report['option']} of {report['settings']['method']} on {report['dataset']['name']}"


def score_table(report: dict[str, Any]) -> str:
    """A Markdown table with a row for each value, in percent; it says which values are the best and the published one.

    Args:
        report: content of a report.json.
    """
    head = [report["option"], "", *(f"mIoU {RULE_TITLES[rule]}" for rule in (GROUND_TRUTH, UNION))]
    head += ["IoU of background", "mIoU of the other classes", "pixel accuracy"]
    rows = []
    for each in report["scores"]:
        marks = [name for name in ("best", "published") if report[name] == each["value"]]
        shares = [each["miou"][GROUND_TRUTH], each["miou"][UNION], each["background"], each["foreground"]]
        rows.append(
            [f"{each['value']:g}", ", ".join(marks), *map(percent, shares), percent(each["pixel_accuracy"])],
        )
    return table(head, rows)


def tables(reports: Sequence[dict[str, Any]]) -> str:
    """The table of each method under its title, in Markdown.

    Args:
        reports: contents of report.json.
    """
    return "\n\n".join(f"# {title(report)}\n\n{score_table(report)}" for report in reports)


def plot(report: dict[str, Any]) -> Figure:
    """The scores against the value of the option; a vertical line marks the published value.

    Args:
        report: content of a report.json.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    values = [each["value"] for each in report["scores"]]
    curves = {"mIoU": [each["miou"][GROUND_TRUTH] for each in report["scores"]]} | {
        label: [each[name] for each in report["scores"]]
        for label, name in (("background", "background"), ("the other classes", "foreground"))
    }
    for label, shares in curves.items():
        if None not in shares:
            axes.plot(values, [100 * share for share in shares], marker=".", label=label)
    if report["published"] is not None:
        axes.axvline(report["published"], color="0.6", linestyle="--", label="published")
    axes.set(xlabel=report["option"], ylabel="IoU, %", title=title(report))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure
