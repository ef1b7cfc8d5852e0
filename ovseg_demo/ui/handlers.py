"""What the events of the page do, on top of one engine."""

import atexit
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.render import export
from ovseg_demo.runtime.stages import Listener, Progress
from ovseg_demo.ui import comparison, evidence, fragments
from ovseg_demo.ui.asked import Asked, granularity_of, plain
from ovseg_demo.ui.comparison import Board, Step
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
    """The request whose result a person sees, without the result, and the granularity that was used.

    Attributes:
        request: what was asked for.
        asked: the same as the controls gave it.
        granularity: 0 to 1; None for a method without it.
        reason: why it was chosen; empty where the person chose it.
    """

    request: Request
    asked: Asked
    granularity: float | None
    reason: str

    @classmethod
    def of(cls, answer: Answer, asked: Asked) -> "Shown":
        return cls(answer.request, asked, answer.result.granularity, answer.result.granularity_reason)


class Handlers:
    """The page's events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = Running()

    def segment(
        self,
        photo: str | None,
        words: str,
        method: str,
        request: gr.Request,
        *settings: Any,
    ) -> Iterator[tuple]:
        """Yields the status, the viewer's value, what is shown, what there is to look into, and the Cancel button.

        Args:
            settings: as of `Asked.of`.
        """
        news: dict[str, Progress] = {}
        began = time.perf_counter()
        asked = Asked.of(photo, words, (method,), *settings)

        def work(listener: Listener) -> Answer:
            listener(Progress("Reading the photo", 0))
            wanted = Request.read(photo, words, method, asked.options(method))
            listener(Progress("Reading the photo", 1))
            return wanted.answer(self._engine, listener)

        try:
            for item in follow(self._running, request.session_hash, work, "segment"):
                if isinstance(item, Answer):
                    took = fragments.finished(list(news.values()), time.perf_counter() - began)
                    sent = payload(item.result, item.request.photo, item.request.photo.key)
                    yield took, sent, Shown.of(item, asked), evidence.offer(item.result), _stop(False)
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

    def compare(
        self,
        photo: str | None,
        words: str,
        chosen: Sequence[str],
        request: gr.Request,
        *settings: Any,
    ) -> Iterator[tuple]:
        """Yields the status, the comparison's value, what it shows and the Cancel button.

        The value is sent with each piece of news, whole, of which gradio passes on the changes; the browser keeps the
        newest comparison, whatever an older one still says.

        Args:
            settings: as of `Asked.of`.
        """
        board: Board | None = None
        began = last = time.perf_counter()
        asked = Asked.of(photo, words, chosen, *settings)

        def work(listener: Listener) -> None:
            wanted = comparison.read(asked)
            listener(Board(wanted))
            comparison.run(wanted, self._engine, listener)

        def news(status: str, running: bool) -> tuple:
            value = (board.value(), asked) if board else (gr.skip(), gr.skip())
            return status, *value, _stop(running)

        try:
            for item in follow(self._running, request.session_hash, work, "compare"):
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

    def cancel(self, request: gr.Request) -> None:
        self._running.cancel(request.session_hash)

    def settle(
        self,
        photo: str | None,
        words: str,
        granularity: float,
        automatic: bool,
        task: str,
        shown: Shown | None,
        request: gr.Request,
    ) -> tuple:
        """Fuse again when the granularity differs from what is shown, if that can be seen and is of this photo and
        these words; a running request will look at it when it ends.

        Returns the viewer's value, what is shown, the granularity that was chosen for it, if it was, and its reason.
        """
        nothing = gr.skip(), gr.skip(), None, gr.skip()
        if shown is None or task != "segment" or self._running.busy(request.session_hash):
            return nothing
        sent, asked = gr.skip(), replace(shown.asked, photo=photo, words=words)
        if shown.asked.change(asked):
            return nothing
        asked = replace(asked, granularity=granularity_of(granularity, automatic))
        if asked.granularity != shown.asked.granularity:
            try:
                options = replace(shown.request.options, granularity=asked.granularity)
                answer = replace(shown.request, options=options).answer(self._engine)
            except Exception as error:  # every failure becomes one sentence on the page
                raise toast(error) from error
            shown, sent = Shown.of(answer, asked), payload(answer.result, None, answer.request.photo.key)
        chosen = round(shown.granularity, 2) if automatic and shown.granularity is not None else None
        return sent, shown, chosen, fragments.reason(shown.reason)

    def take_over(
        self, photo: str | None, words: str, granularity: float, task: str, shown: Shown | None, request: gr.Request
    ) -> tuple:
        """The slider was moved by hand: no longer automatic. Returns value, shown, automatic and reason."""
        sent, shown, _, _ = self.settle(photo, words, granularity, False, task, shown, request)
        return sent, shown, False, ""

    def outdated(
        self,
        photo: str | None,
        words: str,
        method: str,
        chosen: Sequence[str],
        shown: Shown | None,
        compared: Asked | None,
        *settings: Any,
    ) -> str:
        """What has changed since the result of each task, as HTML.

        Args:
            settings: as of `Asked.of`.
        """
        now = Asked.of(photo, words, (method,), *settings)
        told = ""
        if shown:
            told += fragments.outdated("segment", shown.asked.change(now))
        if compared:
            told += fragments.outdated("compare", compared.change(replace(now, methods=tuple(chosen))))
        return told

    def file(self, kind: str, shown: Shown | None) -> str:
        """The path of one file of the result that is shown."""
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

    def api(
        self,
        photo: str | None,
        vocabulary: str,
        method: str,
        granularity: float | None,
        proposals: str,
        rejection: int | None = None,
        seen: str | None = None,
        trusty: bool = True,
    ) -> tuple[str, str, str]:
        """Segment a photo with your own words; granularity null chooses it automatically.

        Rejection, for the methods that have it: at each stage only the words that are among so many best somewhere in
        the photo stay; null keeps all. Seen, likewise: the words that count as seen in training, parted as in the
        vocabulary; null leaves it to the model, and with an empty text none does. Trusty, likewise: whether scores are
        weighted by how new each region looks to the model.

        Returns the overlay PNG, the label PNG (class indices, 255 where unlabelled) and a JSON file with shares,
        confidences and COCO run lengths of every class found.
        """
        try:
            options = plain(granularity, proposals, rejection, seen, trusty)
            answer = Request.read(photo, vocabulary, method, options).answer(self._engine)
            return tuple(_files(answer, ["overlay", "labels", "json"]))
        except Exception as error:  # every failure becomes one sentence for the caller
            raise gr.Error(told(error), print_exception=False) from error


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
    return [
        str(path)
        for path in export.write_files(
            folder, "segmentation", asked.photo, answer.result, asked.vocabulary, asked.method, asked.options, kinds
        )
    ]
