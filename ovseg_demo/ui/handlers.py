"""The work of the page's events and of the public API, on top of one engine."""

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.methods import registry
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.render import export
from ovseg_demo.result import Choice
from ovseg_demo.runtime.stages import Listener, Progress
from ovseg_demo.ui import comparison, evidence, fragments
from ovseg_demo.ui.comparison import Board, MethodUpdate
from ovseg_demo.ui.page_request import PageRequest, option_keys
from ovseg_demo.ui.payload import payload
from ovseg_demo.ui.session import (
    CANCELLING,
    Answer,
    Request,
    RunningRequests,
    Superseded,
    error_sentence,
    error_toast,
    follow,
)

_EXPORTS = Path(tempfile.mkdtemp(prefix="ovseg-demo-"))
atexit.register(shutil.rmtree, _EXPORTS, ignore_errors=True)
FILE_AGE_SECONDS = 3600
_PROGRESS_SECONDS = 0.5
"""A comparison's progress is not sent more often: the browser takes the whole value each time, pictures and all."""

_UNCHANGED = (gr.skip(),) * 3
"""For the viewer's value, the shown result and the heat maps."""


@dataclass(frozen=True)
class ShownResult:
    """Which result the page shows: the request that it answers, without the pixels.

    Attributes:
        request: the request.
        page: what the controls said when the request was made.
        chosen: the values of options that were left to the method, by the keys of their controls.
    """

    request: Request
    page: PageRequest
    chosen: Mapping[str, Choice]

    @classmethod
    def of(cls, answer: Answer, page: PageRequest) -> "ShownResult":
        """The shown result of an answer to what the controls said, `page`."""
        keys = option_keys(answer.request.method)
        chosen = {keys[name]: choice for name, choice in answer.result.chosen.items() if name in keys}
        return cls(answer.request, page, chosen)


@dataclass(frozen=True)
class LiveUpdate:
    """What the page shows after a control moved whose changes are shown at once.

    Attributes:
        viewer: the viewer's value, or gradio's skip where it stays.
        shown: the shown result, or gradio's skip where it stays.
        chosen: as of `ShownResult`; None where no result is shown that fits the photo and the words.
    """

    viewer: Any = field(default_factory=gr.skip)
    shown: Any = field(default_factory=gr.skip)
    chosen: Mapping[str, Choice] | None = None


class Handlers:
    """The work of the page's events, and of the public API.

    Args:
        engine: segments the photos.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = RunningRequests()

    def segment(self, page: PageRequest, session: str) -> Iterator[tuple]:
        """Segment a photo by one method.

        Args:
            page: what the controls say.
            session: of the browser's tab.

        Yields the status, the viewer's value, the `ShownResult`, the heat maps that there are, and the Cancel button.
        """
        stages: dict[str, Progress] = {}
        began = time.perf_counter()
        (method,) = page.methods

        def work(listener: Listener) -> Answer:
            reading = Progress("Reading the photo", 0)
            listener(reading)
            request = Request.read(page.photo, page.words, method, page.options(method), lambda: listener(reading))
            listener(Progress("Reading the photo", 1))
            return request.answer(self._engine, listener)

        try:
            for message in follow(self._running, session, work, "segment"):
                if isinstance(message, Answer):
                    status = fragments.finished(list(stages.values()), time.perf_counter() - began)
                    viewer = payload(message.result, message.request.photo, message.request.photo.key)
                    heat_maps = evidence.available_maps(message.result)
                    yield status, viewer, ShownResult.of(message, page), heat_maps, _cancel_button(False)
                elif message is CANCELLING:
                    yield fragments.status((), "cancelling"), *_UNCHANGED, _cancel_button(False)
                else:
                    stages[message.stage] = message
                    yield fragments.status(list(stages.values())), *_UNCHANGED, _cancel_button(True)
        except Superseded as newer:
            yield _superseded("segment", newer), *_UNCHANGED, gr.skip()
        except Cancelled:
            yield fragments.status((), "cancelled"), *_UNCHANGED, _cancel_button(False)
        except Exception as error:  # every failure becomes one sentence on the page
            yield "", *_UNCHANGED, _cancel_button(False)
            raise error_toast(error) from error

    def compare(self, page: PageRequest, session: str) -> Iterator[tuple]:
        """Segment a photo by several methods.

        The whole value of the comparison is sent with each update, and gradio passes on the changes; the browser keeps
        the newest comparison, whatever an older one still sends.

        Args:
            page: what the controls say.
            session: of the browser's tab.

        Yields the status, the comparison's value, the request that it answers, and the Cancel button.
        """
        board: Board | None = None
        began = last = time.perf_counter()

        def work(listener: Callable[[Any], None]) -> None:
            requests = comparison.read_requests(page, lambda: listener(Progress("Reading the photo", 0)))
            listener(Board(requests))
            comparison.run_requests(requests, self._engine, listener)

        def outputs(status: str, running: bool) -> tuple:
            value = (board.value(), page) if board else (gr.skip(), gr.skip())
            return status, *value, _cancel_button(running)

        try:
            for message in follow(self._running, session, work, "compare"):
                if message is CANCELLING:
                    yield outputs(fragments.status((), "cancelling"), False)
                    continue
                due = time.perf_counter() - last >= _PROGRESS_SECONDS
                if isinstance(message, Board):
                    board = message
                elif board and isinstance(message, MethodUpdate) and not board.record(message) and not due:
                    continue
                last = time.perf_counter()
                yield outputs(fragments.comparison_status(board.panels if board else ()), True)
            seconds = time.perf_counter() - began
            yield outputs(fragments.comparison_finished(board.panels if board else (), seconds), False)
        except Superseded as newer:
            yield _superseded("compare", newer), _cancelled(board), gr.skip(), gr.skip()
        except Cancelled:
            yield fragments.status((), "cancelled"), _cancelled(board), gr.skip(), _cancel_button(False)
        except Exception as error:  # every failure becomes one sentence on the page
            yield "", _cancelled(board), gr.skip(), _cancel_button(False)
            raise error_toast(error) from error

    def cancel(self, session: str) -> None:
        """Cancel what runs in a session."""
        self._running.cancel(session)

    def update_live(
        self, page: PageRequest, live: Sequence[str], task: str, shown: ShownResult | None, session: str
    ) -> LiveUpdate:
        """Run the fast last stage again where a live control differs from the result that is shown.

        Nothing happens unless the result can be seen and is of this photo and these words, nor while a request runs:
        when the request ends, this is called again.

        Args:
            page: what the controls say.
            live: the keys of the controls whose changes are shown at once.
            task: "segment" or "compare", the task that the page shows.
            shown: the shown result; None before there is one.
            session: of the browser's tab.
        """
        if shown is None or task != "segment" or self._running.busy(session):
            return LiveUpdate()
        if shown.page.change(replace(shown.page, photo=page.photo, words=page.words)):
            return LiveUpdate()
        updated = shown.page.with_values({key: page.values[key] for key in live if key in page.values})
        viewer = gr.skip()
        if shown.page.change(updated):
            try:
                options = updated.options(shown.request.method)
                answer = replace(shown.request, options=options).answer(self._engine)
            except Exception as error:  # every failure becomes one sentence on the page
                raise error_toast(error) from error
            shown, viewer = ShownResult.of(answer, updated), payload(answer.result, None, answer.request.photo.key)
        return LiveUpdate(viewer, shown, shown.chosen)

    def outdated(
        self, page: PageRequest, methods: Sequence[str], shown: ShownResult | None, compared: PageRequest | None
    ) -> str:
        """What has changed since the result of each task, as HTML.

        Args:
            page: what the controls say, for the one method of Segment.
            methods: the methods that are ticked for Compare.
            shown: the shown result of Segment; None before there is one.
            compared: the request whose comparison is shown; None before there is one.
        """
        sentences = ""
        if shown:
            sentences += fragments.outdated("segment", shown.page.change(page))
        if compared:
            sentences += fragments.outdated("compare", compared.change(replace(page, methods=tuple(methods))))
        return sentences

    def write_file(self, kind: str, shown: ShownResult | None) -> str:
        """Write one file of the shown result and return its path.

        Args:
            kind: a kind of `export.FILE_SUFFIXES`.
            shown: the shown result; None, where it is forgotten, raises an error for the person.
        """
        try:
            return _write_files(self._shown_answer(shown), [kind])[0]
        except Exception as error:  # every failure becomes one sentence on the page
            raise error_toast(error) from error

    def draw_heat_maps(self, shown: ShownResult | None, event: gr.EventData) -> dict:
        """The heat maps of one word, see `evidence.draw_word_maps`.

        Args:
            shown: the shown result; None, where it is forgotten, raises an error for the person.
            event: has the `id` of the heat maps that were offered and the `word`.
        """
        try:
            return evidence.draw_word_maps(self._shown_answer(shown), event.id, event.word)
        except Exception as error:  # every failure becomes one sentence on the page
            raise error_toast(error) from error

    def _shown_answer(self, shown: ShownResult | None) -> Answer:
        """The answer that is shown, computed again; all but its last stage, the naming of pixels, is cached."""
        if shown is None:
            raise UserError("Segment a photo first, or again: results are forgotten after an hour.")
        return shown.request.answer(self._engine)

    def api_segment(
        self, photo: str | None, vocabulary: str, method: str, options: Any = None, proposals: str | None = None
    ) -> tuple[str, str, str]:
        """Segment a photo with your own words.

        Args:
            photo: the image file.
            vocabulary: the words to find, parted by commas; "|" parts synonyms.
            method: an id, as /methods lists them.
            options: a JSON object with options of the method, as their schema in /methods describes them, for example
                {"granularity": 0.5}; what is left out has its default. A number is the granularity, as in earlier
                versions.
            proposals: leave it out; callers of earlier versions send this option by itself.

        Returns:
            the overlay PNG, the label PNG (class indices, 255 where unlabelled) and a JSON file with shares,
            confidences and COCO run lengths of every class found, and the probability that each word is in the photo.
        """
        try:
            request = Request.read(photo, vocabulary, method, _api_options(method, options, proposals))
            overlay, labels, content = _write_files(request.answer(self._engine), ["overlay", "labels", "json"])
            return overlay, labels, content
        except Exception as error:  # every failure becomes one sentence for the caller
            raise gr.Error(error_sentence(error), print_exception=False) from error

    def api_methods(self) -> list[dict[str, Any]]:
        """The methods that /segment takes.

        Returns:
            for each method its id, title and summary, whether its weights are here, and the JSON schema of its options.
        """
        return [
            {
                "id": spec.id,
                "title": spec.title,
                "summary": spec.summary,
                "available": not spec.missing(),
                "options": spec.options.json_schema(),
            }
            for spec in registry.REGISTRY.values()
        ]


def _api_options(method: str, given: Any, proposals: str | None = None) -> MethodOptions:
    """The options of an API call, see `Handlers.api_segment`. Raises UserError for what does not fit."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = {"granularity": given}
    if isinstance(given, str) and given.strip():
        with suppress(ValueError):  # refused below, as any other value that is no object
            given = json.loads(given)
    if given in (None, ""):
        given = {}
    if not isinstance(given, Mapping):
        raise UserError(f'Options must be one JSON object, for example {{"granularity": 0.5}}; got {given!r:.60}.')
    return registry.read_options(method, {**given, **({} if proposals is None else {"proposals": proposals})})


def _cancel_button(enabled: bool) -> gr.Button:
    return gr.Button(interactive=enabled)


def _superseded(task: str, newer: Superseded) -> str | dict:
    """The last status of a request that another has replaced."""
    # gradio repeats the last outputs when a request ends; they must not cover those of a successor in the same tab.
    return gr.skip() if newer.task == task else fragments.status((), "cancelled")


def _cancelled(board: Board | None) -> dict:
    """The last value of a comparison that has been cancelled."""
    if board is None:
        return gr.skip()
    board.cancel()
    return board.value()


def _write_files(answer: Answer, kinds: Sequence[str]) -> list[str]:
    """Write files of an answer into a new folder and return their paths; gradio hands out copies of its own.

    Folders of earlier requests are deleted when they are old.
    """
    for old in _EXPORTS.iterdir():
        with suppress(FileNotFoundError):  # another request may be doing the same
            if time.time() - old.stat().st_mtime > FILE_AGE_SECONDS:
                shutil.rmtree(old)
    request = answer.request
    paths = export.write_files(
        Path(tempfile.mkdtemp(dir=_EXPORTS)),
        "segmentation",
        request.photo,
        answer.result,
        request.vocabulary,
        request.method,
        request.options,
        kinds,
    )
    return [str(path) for path in paths]
