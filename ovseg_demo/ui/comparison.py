"""Several methods on one photo with the same words and settings: running them, and what the page knows of each."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.methods import registry
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import Progress
from ovseg_demo.ui import fragments
from ovseg_demo.ui.page_request import PageRequest
from ovseg_demo.ui.panel import Panel
from ovseg_demo.ui.payload import classes, layer, photo_url
from ovseg_demo.ui.session import Answer, Request, told

LEAST, MOST = 2, 4
"""Methods of one comparison."""

_runs = itertools.count(time.time_ns() // 1_000_000)
"""Numbers of comparisons; a server that starts anew goes on above those that browsers may still show."""


def read(asked: PageRequest) -> list[Request]:
    """A request for each method; they differ in nothing else, but that each has only the settings that it uses.

    Raises UserError for too few or too many methods, and whatever `Request.read` raises.
    """
    chosen = tuple(dict.fromkeys(asked.methods))
    if not LEAST <= len(chosen) <= MOST:
        raise UserError("Tick two to four methods to compare.")
    first = Request.read(asked.photo, asked.words, chosen[0], asked.options(chosen[0]))
    return [replace(first, method=method, options=asked.options(method)) for method in chosen]


@dataclass(frozen=True)
class Step:
    """News of one method, told by its number: progress, its answer, or a sentence on why there is none."""

    number: int
    news: Progress | Answer | str


def run(asked: Sequence[Request], engine: Engine, listener: Callable[[Step], None]) -> None:
    """Each request in turn; one that fails is told of, and the others go on. Raises Cancelled when `listener` does."""
    for number, request in enumerate(asked):
        try:
            news = request.answer(engine, partial(_forward, listener, number))
        except Cancelled:
            raise
        except Exception as error:  # every failure becomes one sentence in the method's panel
            news = told(error)
        listener(Step(number, news))


def _forward(listener: Callable[[Step], None], number: int, progress: Progress) -> None:
    listener(Step(number, progress))


class Board:
    """The panels of one comparison, and its value for the browser's component."""

    def __init__(self, asked: Sequence[Request]) -> None:
        photo = asked[0].photo
        height, width = photo.pixels.shape[:2]
        self._frame = {
            "run": next(_runs),
            "width": width,
            "height": height,
            "photo": photo_url(photo),
            **classes(asked[0].vocabulary.names),
        }
        self.panels = [Panel(registry.get(request.method).title) for request in asked]

    def take(self, step: Step) -> bool:
        """Note what has happened to one method; whether its state is another now."""
        panel, news = self.panels[step.number], step.news
        before = panel.state
        if isinstance(news, Progress):
            panel.state, panel.progress, panel.line = "running", news, fragments.doing(news)
        elif isinstance(news, Answer):
            panel.state, panel.layer = "done", layer(news.result)
            panel.line, panel.detail = _seconds(news.result), _stages(news.result)
            panel.reason = " ".join(choice.reason for choice in news.result.chosen.values())
        else:
            panel.state, panel.line = "failed", news
        return panel.state != before

    def cancel(self) -> None:
        """Note that what has not finished never will."""
        for panel in self.panels:
            if panel.state in ("waiting", "running"):
                panel.state, panel.line = "cancelled", "Cancelled"

    def value(self) -> dict:
        """Everything so far, ready for JSON. gradio sends what has changed since the last value."""
        shown = ("title", "state", "line", "detail", "reason", "layer")
        return {**self._frame, "panels": [{name: getattr(panel, name) for name in shown} for panel in self.panels]}


def _seconds(result: Segmentation) -> str:
    """How long a result took, how many of its stages were cached, and the values that were chosen for it."""
    cached = sum(seconds == 0 for seconds in result.timings.values())
    pieces = [f"{sum(result.timings.values()):.1f} s"]
    if cached:
        pieces.append(f"{cached} of {len(result.timings)} cached")
    pieces += [f"{name} {choice.value:.2f}" for name, choice in result.chosen.items()]
    return " · ".join(pieces)


def _stages(result: Segmentation) -> str:
    return ", ".join(
        f"{stage} {f'{seconds:.2f} s' if seconds else 'cached'}" for stage, seconds in result.timings.items()
    )
