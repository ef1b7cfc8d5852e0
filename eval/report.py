"""The report of a run as JSON, as Markdown, and as one row of a table that compares methods.

`report_content` collects everything; the other functions read only its result, so a report.json can be rendered again.
Shares are in [0, 1] in JSON and in percent in Markdown. What was not measured is null, or an en dash.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.datasets.base import Dataset
from eval.journal import Record
from eval.markdown import table
from eval.metrics import GROUND_TRUTH, RULES, UNION
from eval.open_iou import Similarities, open_iou
from eval.runner import Evaluation

RULE_TITLES = {GROUND_TRUTH: "over classes in the ground truth", UNION: "over classes in ground truth or prediction"}

_WALL = ("waiting", "inference", "metrics")
"""The parts of an image's wall time. Loading runs in parallel to inference, so only the waiting for it counts."""

_PART_TITLES = {
    "waiting": "waiting for images and labels",
    "inference": "inference",
    "metrics": "metrics",
    "loading": "loading, beside inference",
}


def report_content(
    evaluation: Evaluation,
    dataset: Dataset,
    similarities: Similarities,
    description: dict[str, Any],
    environment: dict[str, Any],
    command: str,
) -> dict[str, Any]:
    """The content of report.json.

    Args:
        evaluation: the counts of the run.
        dataset: the benchmark.
        similarities: of its classes, for Open mIoU.
        description: settings of the run, "method" and "options" among them.
        environment: the machine of the run, see `eval.environment.environment`.
        command: the command line of the run.
    """
    scores = evaluation.confusion.scores(dataset.seen, dataset.unseen)
    boundary = evaluation.boundary.iou()
    open_ious, open_means = open_iou(evaluation.confusion, similarities.matrix)
    metrics = {
        "miou": {rule: json_value(asdict(scores.means[rule])) for rule in RULES},
        "open_miou": json_value({**open_means, "similarities": similarities.source}),
        "boundary_iou": evaluation.boundary.mean(),
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_class_accuracy": scores.mean_class_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
    }
    classes = [
        {
            "index": index,
            "name": name,
            "iou": scores.iou[index],
            "accuracy": scores.accuracy[index],
            "open_iou": open_ious[index],
            "boundary_iou": boundary[index],
            "pixels": int(scores.pixels[index]),
            "predicted": int(scores.predicted[index]),
        }
        for index, name in enumerate(dataset.vocabulary.names)
    ]
    return {
        "command": command,
        "dataset": {
            "name": dataset.name,
            "classes": len(dataset.vocabulary),
            "background": None if dataset.background is None else dataset.vocabulary.names[dataset.background],
            "seen": list(dataset.seen),
            "unseen": list(dataset.unseen),
            "images": len(dataset),
        },
        "images": len(evaluation.records),
        "failures": [asdict(failure) for failure in evaluation.failures],
        "scores": json_value(metrics),
        "classes": list(map(json_value, classes)),
        "seconds": _seconds(evaluation.records),
        "settings": description,
        "environment": environment,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report of one run in Markdown.

    Args:
        report: content of its report.json.
    """
    settings, dataset = report["settings"], report["dataset"]
    background = dataset["background"]
    words = f"{dataset['classes']} classes" + (f", '{background}' being what is left unlabelled" if background else "")
    parts = [
        f"# {settings['method']} on {dataset['name']}",
        f"{report['images']} of {dataset['images']} images, {words}.",
        f"```sh\n{report['command']}\n```",
        "## Scores",
        _score_table(report),
        "## Time",
        _time_table(report["seconds"]),
        "## Classes",
        _class_table(report["classes"]),
        *closing_parts(report),
    ]
    return "\n\n".join(parts) + "\n"


def closing_parts(report: dict[str, Any]) -> list[str]:
    """The last parts of a report in Markdown: failures, settings and environment, each with its heading.

    Args:
        report: content of a report.json, of which "failures", "settings" and "environment" are read.
    """
    failures = report["failures"]
    return [
        "## Failures",
        table(["file", "why"], [[f["path"], f["error"]] for f in failures]) if failures else "None.",
        "## Settings",
        table(["setting", "value"], [[name, _setting_text(name, value)] for name, value in _flat(report["settings"])]),
        "## Environment",
        table(["", ""], [[name, str(value)] for name, value in report["environment"].items() if value is not None]),
    ]


def comparison(reports: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with a row for each method.

    Args:
        reports: contents of report.json, at least one, all of the same benchmark.
    """
    split = bool(reports[0]["dataset"]["unseen"])
    head = ["method", "mIoU", "mIoU (GT or predicted)", "Open mIoU", "boundary IoU", "pAcc", "mAcc", "fwIoU"]
    head += ["seen", "unseen", "hIoU"] * split
    rows = []
    for report in reports:
        scores = report["scores"]
        truth, union = (scores["miou"][rule] for rule in RULES)
        values = [truth["miou"], union["miou"], scores["open_miou"][GROUND_TRUTH], scores["boundary_iou"]]
        values += [scores["pixel_accuracy"], scores["mean_class_accuracy"], scores["frequency_weighted_iou"]]
        values += [truth[name] for name in ("seen", "unseen", "harmonic")] * split
        counts = [_number(report["seconds"].get("inference", {}).get("median")), str(report["images"])]
        rows.append([report["settings"]["method"], *map(percent, values), *counts, str(len(report["failures"]))])
    return table([*head, "s / image", "images", "failed"], rows)


def _score_table(report: dict[str, Any]) -> str:
    """A table of the scores under both rules of the mean, and a table of the scores that do not depend on the rule."""
    scores, split = report["scores"], bool(report["dataset"]["unseen"])
    titles = {"miou": "mIoU", **({"seen": "mIoU, seen", "unseen": "mIoU, unseen", "harmonic": "hIoU"} if split else {})}
    rows = [[title, *(percent(scores["miou"][rule][name]) for rule in RULES)] for name, title in titles.items()]
    rows.append(["Open mIoU", *(percent(scores["open_miou"][rule]) for rule in RULES)])
    single = {
        "boundary IoU": "boundary_iou",
        "pixel accuracy": "pixel_accuracy",
        "mean class accuracy": "mean_class_accuracy",
        "frequency-weighted IoU": "frequency_weighted_iou",
    }
    ruled = table(["%", *(RULE_TITLES[rule] for rule in RULES)], rows)
    rest = table(["score", "%"], [[title, percent(scores[name])] for title, name in single.items()])
    source = f"Similarities of classes in Open mIoU: {scores['open_miou']['similarities']}."
    return f"{ruled}\n\n{source}\n\n{rest}"


def _time_table(seconds: dict[str, Any]) -> str:
    rows = []
    for name, row in seconds.items():
        title = _PART_TITLES.get(name, f"inference: {name}")
        share = percent(row["share"]) if name in _WALL else ""
        rows.append([title, *(_number(row[key]) for key in ("total", "mean", "median")), share])
    return table(["seconds", "all images", "mean", "median", "share, %"], rows)


def _class_table(classes: Sequence[dict[str, Any]]) -> str:
    rows = []
    for row in classes:
        shares = [percent(row[key]) for key in ("iou", "accuracy", "open_iou", "boundary_iou")]
        rows.append([str(row["index"]), row["name"], *shares, f"{row['pixels']:,}", f"{row['predicted']:,}"])
    return table(["", "class", "IoU, %", "accuracy, %", "Open IoU, %", "boundary IoU, %", "pixels", "predicted"], rows)


def _seconds(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Total, mean, median and share of wall time, by part and then by stage of the method."""
    columns: dict[str, list[float]] = {}
    for record in records:
        for name, value in (*record.seconds.items(), *record.stages.items()):
            columns.setdefault(name, []).append(value)
    wall = sum(sum(columns.get(name, ())) for name in _WALL)
    order = sorted(columns, key=lambda name: [*_PART_TITLES].index(name) if name in _PART_TITLES else len(_PART_TITLES))
    return {
        name: {
            "total": sum(columns[name]),
            "mean": statistics.fmean(columns[name]),
            "median": statistics.median(columns[name]),
            "share": sum(columns[name]) / wall,
        }
        for name in order
    }


def _flat(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Settings without nesting: {"options": {"granularity": 1}} becomes ("options, granularity", 1)."""
    rows = []
    for name, value in settings.items():
        rows += [(f"{name}, {inner}", v) for inner, v in value.items()] if isinstance(value, dict) else [(name, value)]
    return rows


def _setting_text(name: str, value: Any) -> str:
    if value is None:
        return "auto" if name == "options, granularity" else "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def json_value(value: Any) -> Any:
    """The value with None in place of NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: json_value(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def percent(share: float | None) -> str:
    """A share in percent with two decimals, or an en dash for None."""
    return "–" if share is None else f"{100 * share:.2f}"


def _number(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3f}"
