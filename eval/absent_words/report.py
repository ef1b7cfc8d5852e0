"""The report of a run as JSON, as Markdown with reliability diagrams, and as rows of a table that compares methods."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from eval.absent_words.measurement import PRESENT, PhotoRecord, measures
from eval.absent_words.vocabularies import KINDS, SMALLEST
from eval.datasets.base import Dataset
from eval.journal import Failure
from eval.markdown import table
from eval.report import closing_parts, json_value, percent

DIAGRAM = "reliability.png"
"""Name of the file with the diagrams."""

_COLUMNS = {
    "mIoU": "miou",
    "mIoU, foreground": "foreground_miou",
    "labelled": "labelled",
    "background labelled": "background_labelled",
    "foreground lost": "foreground_lost",
}
_PRESENCE = {
    "presence AP": "average_precision",
    "false positives": "false_positive_rate",
    "found": "found",
}
_CURVES = {"pixels": "confidence of a pixel's class", "presence": "probability that a word is present"}

_EXPLANATION = f"""\
Classes with less than {100 * SMALLEST:g} % of a photo's pixels are not asked for there, and their pixels are ignored.

- mIoU: mean over the classes in the ground truth, "unlabelled" being one of them; over the foreground: without it, and
  without the pixels that none of the words describes.
- Labelled: of all pixels, those that were given a word.
- Background labelled: of the pixels that none of the words describes, those that were given one.
- Foreground lost: of the pixels that one of the words describes, those that were left unlabelled.
- Presence AP: average precision of the probability that a word is in the photo, over all pairs of photo and word.
- False positives, found: of the absent, and of the present words, those whose probability is at least {PRESENT:g}.
- ECE: expected calibration error, of the confidence of labelled pixels and of the probability of presence."""


def report_content(
    records: Sequence[PhotoRecord],
    failures: Sequence[Failure],
    dataset: Dataset,
    description: Mapping[str, Any],
    environment: Mapping[str, Any],
    command: str,
) -> dict[str, Any]:
    """The content of report.json.

    Args:
        records: of the finished photos.
        failures: of the others.
        dataset: the data set.
        description: settings of the run, "method", "options" and "set" among them.
        environment: the machine of the run, see `eval.environment.environment`.
        command: the command line of the run.
    """
    return {
        "command": command,
        "photos": len(dataset),
        "measured": sum(bool(record.outcomes) for record in records),
        "failures": [asdict(failure) for failure in failures],
        "kinds": json_value(measures(records, dataset)),
        "settings": dict(description),
        "environment": dict(environment),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report of one run in Markdown, which shows the diagrams beside it.

    Args:
        report: content of its report.json.
    """
    settings = report["settings"]
    sentences = f"{report['measured']} of {report['photos']} photos have a class that is large enough."
    kinds = [[kind, text, *_counts(report["kinds"][kind])] for kind, text in KINDS.items()]
    parts = [
        f"# {settings['method']} on {settings['set']}, with words that are absent",
        sentences,
        f"```sh\n{report['command']}\n```",
        table(["vocabulary", "holds", "photos", "words"], kinds),
        "## Scores",
        table(["%", *_head()], [[kind, *_cells(report["kinds"][kind])] for kind in KINDS]),
        _EXPLANATION,
        "## Reliability",
        f"![Share right against confidence and probability]({DIAGRAM})",
        *closing_parts(dict(report)),
    ]
    return "\n\n".join(parts) + "\n"


def comparison(reports: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a row for each method and kind of vocabulary, in percent.

    Args:
        reports: contents of report.json, of the same photos and vocabularies.
    """
    rows = [
        [report["settings"]["method"], kind, *_cells(report["kinds"][kind]), str(report["kinds"][kind]["photos"])]
        for report in reports
        for kind in KINDS
    ]
    return table(["method", "vocabulary", *_head(), "photos"], rows)


def diagrams(report: Mapping[str, Any]) -> Figure:
    """Reliability diagrams: the share that is right against the confidence of pixels and the probability of presence.

    Args:
        report: content of a report.json.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), _CURVES.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        for kind, found in report["kinds"].items():
            points = [(probability, right) for _, probability, right in found["reliability"][name]]
            axes.plot(*zip(*points, strict=True) if points else ([], []), marker="o", label=kind)
        axes.set(xlabel=title, ylabel="share right", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{report['settings']['method']} on {report['settings']['set']}", fontsize="medium")
    return figure


def _head() -> list[str]:
    return [*_COLUMNS, *_PRESENCE, "ECE, pixels", "ECE, presence"]


def _counts(found: Mapping[str, Any]) -> list[str]:
    return [f"{found['photos']:,}", f"{found['words']:,}"]


def _cells(found: Mapping[str, Any]) -> list[str]:
    values = [found[name] for name in _COLUMNS.values()]
    values += [found["presence"][name] for name in _PRESENCE.values()]
    values += [found["calibration_error"][name] for name in _CURVES]
    return list(map(percent, values))
