"""Small pieces of HTML for the page. Whatever a person typed is escaped here."""

import base64
from collections.abc import Sequence
from html import escape

import cv2

from ovseg_demo import vocabulary
from ovseg_demo.errors import UserError
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.render import draw
from ovseg_demo.runtime.stages import Progress
from ovseg_demo.ui import gallery
from ovseg_demo.ui.panel import Panel
from ovseg_demo.weights.catalogue import Checkpoint

_THUMBNAIL_HEIGHT = 132
_CHIPS_SHOWN = 40
_ENDINGS = {"cancelling": "Cancelling …", "cancelled": "Cancelled."}


def chips(text: str) -> str:
    """What the vocabulary box was understood as: a chip for each class, in its colour, or the reason it cannot be."""
    if not text.strip():
        return "<p class='chips-hint'>Part classes with commas; give synonyms with | as in <b>sofa|couch</b>.</p>"
    try:
        parsed = vocabulary.parse(text)
    except UserError as error:
        return f"<p class='chips-error' role='alert'>{escape(str(error))}</p>"
    tints = draw.colours(parsed.names)
    pieces = []
    for name, synonyms, tint in list(zip(parsed.names, parsed.synonyms, tints, strict=True))[:_CHIPS_SHOWN]:
        also = f"<small> | {escape(' | '.join(synonyms))}</small>" if synonyms else ""
        dot = f"<i style='background:#{bytes(tint).hex()}'></i>"
        pieces.append(f"<span class='chip'>{dot}{escape(name)}{also}</span>")
    if len(parsed) > _CHIPS_SHOWN:
        pieces.append(f"<span class='chip more'>and {len(parsed) - _CHIPS_SHOWN} more</span>")
    hints = "".join(f"<p class='chips-hint'>{escape(notice)}</p>" for notice in parsed.notices)
    return f"<div class='chips'>{''.join(pieces)}</div>{hints}"


def progress_line(progress: Progress) -> str:
    """The name of a running stage and how far it is, as plain text."""
    state = "waiting for another photo" if progress.waiting else f"{100 * progress.fraction:.0f} %"
    return f"{progress.stage} … {state}"


def status(stages: Sequence[Progress], state: str = "running") -> str:
    """The stages so far, the last one with its progress bar.

    Args:
        stages: the latest progress of each stage, in order.
        state: "running", "done", "cancelling" or "cancelled".
    """
    done = [
        f"<li>{escape(p.stage)}{' <small>cached</small>' if p.cached else ''}</li>" for p in stages if p.fraction >= 1
    ]
    current = next((p for p in reversed(stages) if p.fraction < 1), None)
    return _status(state, "" if current is None else _meter(progress_line(current), current.fraction), done)


def comparison_status(panels: Sequence[Panel], state: str = "running") -> str:
    """Every method of a comparison with how far it is, the running one with its progress bar.

    Args:
        panels: one for each method.
        state: as of `status`.
    """
    running = [(p.title, p.progress) for p in panels if p.state == "running" and p.progress is not None]
    line = "".join(_meter(f"{title}: {progress_line(stage)}", stage.fraction) for title, stage in running[:1])
    ends = [(p, p.line if p.state == "done" else p.state) for p in panels if p.state in ("done", "failed")]
    items = [f"<li class='{p.state}'>{escape(p.title)} <small>{escape(end)}</small></li>" for p, end in ends]
    return _status(state, line, items)


def _status(state: str, running: str, done: Sequence[str]) -> str:
    if state in _ENDINGS:
        running = f"<p class='stage-now'>{_ENDINGS[state]}</p>"
    elif state == "done":
        running = ""
    return f"<div class='status' data-state='{state}'>{running}<ul>{''.join(done)}</ul></div>"


def _meter(line: str, fraction: float) -> str:
    share = f"{100 * fraction:.0f}"
    return (
        f"<p class='stage-now'>{escape(line)}</p><div class='meter' role='progressbar' "
        f"aria-valuemin='0' aria-valuemax='100' aria-valuenow='{share}'><span style='width:{share}%'></span></div>"
    )


def finished(stages: Sequence[Progress], seconds: float) -> str:
    """The stages of a finished request, as for `status`, and how long the request took."""
    return _total(seconds) + status(stages, "done")


def comparison_finished(panels: Sequence[Panel], seconds: float) -> str:
    """The methods of a finished comparison and how long it took."""
    return _total(seconds) + comparison_status(panels, "done")


def _total(seconds: float) -> str:
    return f"<p class='stage-total'>Done in {seconds:.1f} s</p>"


def reason(sentence: str) -> str:
    """Why the value of an option was chosen."""
    return f"<p class='reason'>{escape(sentence)}</p>" if sentence else ""


def outdated(task: str, change: str) -> str:
    """Says that the result of a task is not what the controls say now. style.css knows `change` as a class.

    Args:
        task: "segment" or "compare".
        change: as of `PageRequest.change`; "" gives no text.
    """
    if not change:
        return ""
    ends = {"photo": "for this photo", "words": "for these words", "settings": "to apply the settings"}
    return f"<p class='outdated {change} only-{task}' role='status'>Press {task.capitalize()} {ends[change]}.</p>"


def unavailable_methods() -> str:
    """The methods whose weights are absent, folded away and grouped by the weights; empty when there is none."""
    absent: dict[tuple[str, ...], list[MethodSpec]] = {}
    for entry in registry.REGISTRY.values():
        if missing := entry.missing():
            absent.setdefault(tuple(c.id for c in missing), []).append(entry)
    if not absent:
        return ""
    count = sum(map(len, absent.values()))
    heading = f"{count} more method{'s need' if count > 1 else ' needs'} weights"
    groups = "".join(map(_group, absent.values()))
    hint = "<p>Run the command below a method (a click selects it), then reload this page.</p>"
    return f"<details class='unavailable'><summary>{heading}</summary>{hint}{groups}</details>"


def _group(entries: Sequence[MethodSpec]) -> str:
    """Methods that need the same weights."""
    rows = "".join(
        f"<li><label><input type='radio' disabled> {escape(e.title)}</label><p>{escape(e.summary)}</p></li>"
        for e in entries
    )
    number = len(entries)
    whose = "Missing" if number == 1 else f"Missing for {'both' if number == 2 else f'all {number}'}"
    return f"<ul>{rows}</ul>" + "".join(_missing(whose, weights) for weights in entries[0].missing())


def _missing(whose: str, weights: Checkpoint) -> str:
    """A weight file, its licence and the command that downloads it, whose words never break."""
    command = " ".join(f"<span>{escape(word)}</span>" for word in weights.how_to_get.split())
    licence = f"<br>Licence: {escape(weights.licence)}"
    return f"<div class='how'>{whose}: {escape(weights.file)}{licence}<code>{command}</code></div>"


def comparison_hint() -> str:
    """What a comparison still needs; empty when enough methods are available."""
    ready = [entry.title for entry in registry.REGISTRY.values() if not entry.missing()]
    if len(ready) > 1:
        return ""
    have = f"only {ready[0]} is ready" if ready else "none is ready"
    return f"<p class='chips-error'>A comparison takes two methods; {escape(have)}. Others need weights, see below.</p>"


def example_buttons() -> str:
    """The example photos as a row of buttons."""
    return "<div class='examples'>" + "".join(map(_thumbnail, range(len(gallery.examples())))) + "</div>"


def _thumbnail(number: int) -> str:
    example = gallery.examples()[number]
    pixels = cv2.imread(str(example.path))
    assert pixels is not None, f"{example.path} ships with the demo"
    width = round(pixels.shape[1] * _THUMBNAIL_HEIGHT / pixels.shape[0])
    small = cv2.resize(pixels, (width, _THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    caption = escape(f"{example.title} ({example.topic}). Photo: {example.credit}", quote=True)
    source = f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
    return (
        f"<button type='button' data-example='{number}' title='{caption}'><img src='{source}' alt=''>"
        f"<span>{escape(example.title)}<small>{escape(example.licence)}</small></span></button>"
    )
