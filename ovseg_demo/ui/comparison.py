"""Several methods on one photo with the same words and settings: running them, and what the page shows of them."""

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
from ovseg_demo.ui.session import Answer, Request, error_sentence

MIN_METHODS, MAX_METHODS = 2, 4
"""How many methods one comparison takes."""

_runs = itertools.count(time.time_ns() // 1_000_000)
"""Numbers of comparisons; a server that starts anew goes on above those that browsers may still show."""


def read_requests(page: PageRequest, check: Callable[[], object] = lambda: None) -> list[Request]:
    """A request for each method; they share photo and words, and each has the options of its method.

    Args:
        page: what the controls say, for all methods.
        check: called while the photo is read, see `image.load`.

    Raises UserError for too few or too many methods, and whatever `Request.read` raises.
    """
    methods = tuple(dict.fromkeys(page.methods))
    if not MIN_METHODS <= len(methods) <= MAX_METHODS:
        raise UserError("Tick two to four methods to compare.")
    first = Request.read(page.photo, page.words, methods[0], page.options(methods[0]), check)
    return [replace(first, method=method, options=page.options(method)) for method in methods]


@dataclass(frozen=True)
class MethodUpdate:
    """What has happened to one method of a comparison.

    Attributes:
        number: the place of the method among the requests, from 0.
        outcome: the progress of the method, its answer, or a sentence on why it failed.
    """

    number: int
    outcome: Progress | Answer | str


def run_requests(requests: Sequence[Request], engine: Engine, listener: Callable[[MethodUpdate], object]) -> None:
    """Answer the requests one after the other; when one fails, the next ones are still answered.

    Args:
        requests: one for each method.
        engine: segments the photo.
        listener: receives the progress and the outcome of every request.

    Raises Cancelled when `listener` does.
    """
    for number, request in enumerate(requests):
        try:
            outcome = request.answer(engine, partial(_forward, listener, number))
        except Cancelled:
            raise
        except Exception as error:  # every failure becomes one sentence in the method's panel
            outcome = error_sentence(error)
        listener(MethodUpdate(number, outcome))


def _forward(listener: Callable[[MethodUpdate], object], number: int, progress: Progress) -> None:
    listener(MethodUpdate(number, progress))


class Board:
    """The panels of one comparison, and its value for the browser's component.

    Args:
        requests: one for each method, all with the same photo and words.

    Attributes:
        panels: what the page shows of each method, in the order of the requests.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        photo = requests[0].photo
        height, width = photo.pixels.shape[:2]
        self._frame = {
            "run": next(_runs),
            "width": width,
            "height": height,
            "photo": photo_url(photo),
            **classes(requests[0].vocabulary.names),
        }
        self.panels = [Panel(registry.get(request.method).title) for request in requests]

    def record(self, update: MethodUpdate) -> bool:
        """Write what has happened to one method into its panel; returns whether the panel's state has changed."""
        panel, outcome = self.panels[update.number], update.outcome
        before = panel.state
        if isinstance(outcome, Progress):
            panel.state, panel.progress, panel.line = "running", outcome, fragments.progress_line(outcome)
        elif isinstance(outcome, Answer):
            panel.state, panel.layer = "done", layer(outcome.result)
            panel.line, panel.detail = _summary(outcome.result), _stages(outcome.result)
            panel.reasons = _reasons(outcome)
        else:
            panel.state, panel.line = "failed", outcome
        return panel.state != before

    def cancel(self) -> None:
        """Write into the panels that the methods which have not finished are cancelled."""
        for panel in self.panels:
            if panel.state in ("waiting", "running"):
                panel.state, panel.line = "cancelled", "Cancelled"

    def value(self) -> dict:
        """The comparison so far, ready for JSON. gradio sends what has changed since the last value."""
        shown = ("title", "state", "line", "detail", "reasons", "layer")
        return {**self._frame, "panels": [{name: getattr(panel, name) for name in shown} for panel in self.panels]}


def _summary(result: Segmentation) -> str:
    """How long a result took, how many of its stages were cached, and the values that were chosen for it."""
    cached = sum(seconds == 0 for seconds in result.timings.values())
    pieces = [f"{sum(result.timings.values()):.1f} s"]
    if cached:
        pieces.append(f"{cached} of {len(result.timings)} cached")
    pieces += [f"{name} {choice.value:.2f}" for name, choice in result.chosen.items()]
    return " · ".join(pieces)


def _stages(result: Segmentation) -> str:
    """The seconds of each stage of a result."""
    return ", ".join(
        f"{stage} {f'{seconds:.2f} s' if seconds else 'cached'}" for stage, seconds in result.timings.items()
    )


def _reasons(answer: Answer) -> tuple[tuple[str, str], ...]:
    """The label of each option that was left to the method, with the reason of the choice."""
    declared = answer.request.options.declared()
    return tuple((declared[name].label, choice.reason) for name, choice in answer.result.chosen.items())
