"""What the events of the page do, on top of one engine."""

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
from ovseg_demo.ui.comparison import Board, Step
from ovseg_demo.ui.page_request import PageRequest, option_keys
from ovseg_demo.ui.payload import payload
from ovseg_demo.ui.session import CANCELLING, Answer, Request, Running, Superseded, follow, toast, told

_EXPORTS = Path(tempfile.mkdtemp(prefix="ovseg-demo-"))
atexit.register(shutil.rmtree, _EXPORTS, ignore_errors=True)
FILE_AGE_SECONDS = 3600
_PROGRESS_SECONDS = 0.5
"""A comparison's progress is not told more often: the browser takes the whole value each time, pictures and all."""

_UNCHANGED = (gr.skip(),) * 3
"""For the viewer's value, what is shown and what there is to look into."""


@dataclass(frozen=True)
class Shown:
    """The request whose result a person sees, without the result.

    Attributes:
        request: what was asked for.
        page: the same as the controls gave it.
        chosen: the values of options that were left to the method, by the keys of their controls.
    """

    request: Request
    page: PageRequest
    chosen: Mapping[str, Choice]

    @classmethod
    def of(cls, answer: Answer, page: PageRequest) -> "Shown":
        keys = option_keys(answer.request.method)
        return cls(answer.request, page, {keys[name]: choice for name, choice in answer.result.chosen.items()})


@dataclass(frozen=True)
class Settled:
    """What the page shows after a control moved whose changes are shown at once.

    Attributes:
        viewer: the viewer's value, or gradio's skip where it stays.
        shown: what is shown, or gradio's skip.
        chosen: as of `Shown`; None where nothing is shown that could be settled.
    """

    viewer: Any = field(default_factory=gr.skip)
    shown: Any = field(default_factory=gr.skip)
    chosen: Mapping[str, Choice] | None = None


class Handlers:
    """The page's events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = Running()

    def segment(self, page: PageRequest, session: str) -> Iterator[tuple]:
        """Segment a photo by one method.

        Args:
            page: what the controls say.
            session: of the browser's tab.

        Yields the status, the viewer's value, what is shown, what there is to look into, and the Cancel button.
        """
        news: dict[str, Progress] = {}
        began = time.perf_counter()
        (method,) = page.methods

        def work(listener: Listener) -> Answer:
            listener(Progress("Reading the photo", 0))
            wanted = Request.read(page.photo, page.words, method, page.options(method))
            listener(Progress("Reading the photo", 1))
            return wanted.answer(self._engine, listener)

        try:
            for item in follow(self._running, session, work, "segment"):
                if isinstance(item, Answer):
                    took = fragments.finished(list(news.values()), time.perf_counter() - began)
                    sent = payload(item.result, item.request.photo, item.request.photo.key)
                    yield took, sent, Shown.of(item, page), evidence.offer(item.result), _stop(False)
                elif item is CANCELLING:
                    yield fragments.status((), "cancelling"), *_UNCHANGED, _stop(False)
                else:
                    news[item.stage] = item
                    yield fragments.status(list(news.values())), *_UNCHANGED, _stop(True)
        except Superseded as newer:
            yield _superseded("segment", newer), *_UNCHANGED, gr.skip()
        except Cancelled:
            yield fragments.status((), "cancelled"), *_UNCHANGED, _stop(False)
        except Exception as error:  # every failure becomes one sentence on the page
            yield "", *_UNCHANGED, _stop(False)
            raise toast(error) from error

    def compare(self, page: PageRequest, session: str) -> Iterator[tuple]:
        """Segment a photo by several methods.

        The whole value of the comparison is sent with each piece of news, and gradio passes on the changes; the browser
        keeps the newest comparison, whatever an older one still says.

        Args:
            page: what the controls say.
            session: of the browser's tab.

        Yields the status, the comparison's value, what it shows and the Cancel button.
        """
        board: Board | None = None
        began = last = time.perf_counter()

        def work(listener: Listener) -> None:
            wanted = comparison.read(page)
            listener(Board(wanted))
            comparison.run(wanted, self._engine, listener)

        def news(status: str, running: bool) -> tuple:
            value = (board.value(), page) if board else (gr.skip(), gr.skip())
            return status, *value, _stop(running)

        try:
            for item in follow(self._running, session, work, "compare"):
                if item is CANCELLING:
                    yield news(fragments.status((), "cancelling"), False)
                    continue
                if isinstance(item, Board):
                    board = item
                elif isinstance(item, Step) and not board.take(item) and time.perf_counter() - last < _PROGRESS_SECONDS:
                    continue
                last = time.perf_counter()
                yield news(fragments.comparing(board.panels), True)
            yield news(fragments.compared(board.panels, time.perf_counter() - began), False)
        except Superseded as newer:
            yield _superseded("compare", newer), _cancelled(board), gr.skip(), gr.skip()
        except Cancelled:
            yield fragments.status((), "cancelled"), _cancelled(board), gr.skip(), _stop(False)
        except Exception as error:  # every failure becomes one sentence on the page
            yield "", _cancelled(board), gr.skip(), _stop(False)
            raise toast(error) from error

    def cancel(self, session: str) -> None:
        """Cancel what runs in a session."""
        self._running.cancel(session)

    def settle(self, page: PageRequest, live: Sequence[str], task: str, shown: Shown | None, session: str) -> Settled:
        """Run the fast last stage again where a live control differs from what is shown.

        Nothing happens unless the result can be seen and is of this photo and these words; a running request will
        settle when it ends.

        Args:
            page: what the controls say.
            live: the keys of the controls whose changes are shown at once.
            task: "segment" or "compare", the one that the page shows.
            shown: what is shown; None before the first result.
            session: of the browser's tab.
        """
        if shown is None or task != "segment" or self._running.busy(session):
            return Settled()
        if shown.page.change(replace(shown.page, photo=page.photo, words=page.words)):
            return Settled()
        wanted = shown.page.with_values({key: page.values[key] for key in live if key in page.values})
        viewer = gr.skip()
        if shown.page.change(wanted):
            try:
                options = wanted.options(shown.request.method)
                answer = replace(shown.request, options=options).answer(self._engine)
            except Exception as error:  # every failure becomes one sentence on the page
                raise toast(error) from error
            shown, viewer = Shown.of(answer, wanted), payload(answer.result, None, answer.request.photo.key)
        return Settled(viewer, shown, shown.chosen)

    def outdated(
        self, page: PageRequest, compared: Sequence[str], shown: Shown | None, compared_as: PageRequest | None
    ) -> str:
        """What has changed since the result of each task, as HTML.

        Args:
            page: what the controls say, for the one method of Segment.
            compared: the methods that are ticked for Compare.
            shown: the result of Segment; None before there is one.
            compared_as: what was asked for by the comparison that is shown; None before there is one.
        """
        sentences = ""
        if shown:
            sentences += fragments.outdated("segment", shown.page.change(page))
        if compared_as:
            sentences += fragments.outdated("compare", compared_as.change(replace(page, methods=tuple(compared))))
        return sentences

    def file(self, kind: str, shown: Shown | None) -> str:
        """The path of one file, a kind of `export.FILE_SUFFIXES`, of the result that is shown."""
        try:
            return _files(self._again(shown), [kind])[0]
        except Exception as error:  # every failure becomes one sentence on the page
            raise toast(error) from error

    def look(self, shown: Shown | None, event: gr.EventData) -> dict:
        """The heat maps of the word that a person looks at in the result that is shown."""
        try:
            return evidence.look(self._again(shown), event.id, event.word)
        except Exception as error:  # every failure becomes one sentence on the page
            raise toast(error) from error

    def _again(self, shown: Shown | None) -> Answer:
        """The result that is shown; all but its last stage, the naming of pixels, is cached."""
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
            confidences and COCO run lengths of every class found.
        """
        try:
            answer = Request.read(photo, vocabulary, method, _api_options(method, options, proposals)).answer(
                self._engine
            )
            return tuple(_files(answer, ["overlay", "labels", "json"]))
        except Exception as error:  # every failure becomes one sentence for the caller
            raise gr.Error(told(error), print_exception=False) from error

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


def _stop(possible: bool) -> gr.Button:
    return gr.Button(interactive=possible)


def _superseded(task: str, newer: Superseded) -> str | dict:
    """The last status of a request that another has replaced."""
    # gradio repeats the last outputs when a request ends; they must not cover those of a successor in the same tab.
    return gr.skip() if newer.task == task else fragments.status((), "cancelled")


def _cancelled(board: Board | None) -> dict:
    if board is None:
        return gr.skip()
    board.cancel()
    return board.value()


def _files(answer: Answer, kinds: Sequence[str]) -> list[str]:
    """Written beside those of other requests, which go when they are old; gradio hands out copies of its own."""
    for old in _EXPORTS.iterdir():
        with suppress(FileNotFoundError):  # another request may be doing the same
            if time.time() - old.stat().st_mtime > FILE_AGE_SECONDS:
                shutil.rmtree(old)
    folder, asked = Path(tempfile.mkdtemp(dir=_EXPORTS)), answer.request
    paths = export.write_files(
        folder, "segmentation", asked.photo, answer.result, asked.vocabulary, asked.method, asked.options, kinds
    )
    return [str(path) for path in paths]
