"""Small pieces of HTML for the page. Whatever a person typed is escaped here."""

import base64
from collections.abc import Sequence
from html import escape

import cv2

from ovseg_demo import draw, engine, gallery, methods, vocabulary
from ovseg_demo.errors import UserError
from ovseg_demo.stages import Progress

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
    notices = [*parsed.notices]
    if len(parsed) == 1:
        notices.append("With one class alone, everything unlike it is left unlabelled.")
    told = "".join(f"<p class='chips-hint'>{escape(n)}</p>" for n in notices)
    return f"<div class='chips'>{''.join(pieces)}</div>{told}"


def status(news: Sequence[Progress], state: str = "running") -> str:
    """The stages so far, the last one with its progress bar.

    Args:
        news: the latest progress of each stage, in order.
        state: "running", "done", "cancelling" or "cancelled".
    """
    done = "".join(
        f"<li>{escape(p.stage)}{' <small>cached</small>' if p.cached else ''}</li>" for p in news if p.fraction >= 1
    )
    current = next((p for p in reversed(news) if p.fraction < 1), None)
    if state in _ENDINGS:
        line = f"<p class='stage-now'>{_ENDINGS[state]}</p>"
    elif state == "done" or current is None:
        line = ""
    else:
        share = f"{100 * current.fraction:.0f}"
        doing = "waiting for another photo" if current.waiting else f"{share} %"
        line = (
            f"<p class='stage-now'>{escape(current.stage)} … {doing}</p><div class='meter' role='progressbar' "
            f"aria-valuemin='0' aria-valuemax='100' aria-valuenow='{share}'><span style='width:{share}%'></span></div>"
        )
    return f"<div class='status' data-state='{state}'>{line}<ul>{done}</ul></div>"


def finished(news: Sequence[Progress], seconds: float) -> str:
    """The stages of a finished request and how long it took."""
    return f"<p class='stage-total'>Done in {seconds:.1f} s</p>" + status(news, "done")


def unavailable() -> str:
    """The methods whose weights are absent, with the way to get them; empty when there is none."""
    rows = [
        f"<li><label><input type='radio' disabled> {escape(entry.title)}</label> "
        f"<details><summary>needs weights</summary>{escape(entry.summary)} Missing: "
        f"<code>{escape(', '.join(c.file for c in entry.missing()))}</code>. {escape(engine.how_to_get(entry))}, "
        f"then reload this page.</details></li>"
        for entry in methods.REGISTRY.values()
        if entry.missing()
    ]
    return f"<ul class='unavailable'>{''.join(rows)}</ul>" if rows else ""


def strip() -> str:
    """The example photos as a row of buttons."""
    return "<div class='strip'>" + "".join(map(_thumbnail, range(len(gallery.examples())))) + "</div>"


def _thumbnail(number: int) -> str:
    example = gallery.examples()[number]
    pixels = cv2.imread(str(example.path))
    width = round(pixels.shape[1] * _THUMBNAIL_HEIGHT / pixels.shape[0])
    small = cv2.resize(pixels, (width, _THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    told = escape(f"{example.title} ({example.topic}). Photo: {example.credit}", quote=True)
    source = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
    return (
        f"<button type='button' data-example='{number}' title='{told}'><img src='{source}' alt='{told}'>"
        f"<span>{escape(example.title)}<small>{escape(example.licence)}</small></span></button>"
    )
