"""One person's requests: running, reporting progress, cancelling, remembering what is shown."""

import html
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ovseg_demo import image, vocabulary
from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.image import Photo
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.stages import CancelFlag, Listener, Progress, ignore_progress
from ovseg_demo.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a person asked for. Kept for as long as its result is shown, so it holds the photo but not the result."""

    photo: Photo
    vocabulary: Vocabulary
    method: str
    options: MethodOptions

    @classmethod
    def read(cls, path: str | None, words: str, method: str, options: MethodOptions) -> "Request":
        """Raises UserError for an absent or unreadable photo and for an unusable vocabulary."""
        if not path:
            raise UserError("Choose a photo first: upload, paste, take one, or pick an example.")
        parsed = vocabulary.parse(words or "")
        return cls(image.load(path), parsed, method, options)

    def answer(self, engine: Engine, listener: Listener = ignore_progress) -> "Answer":
        return Answer(self, engine.segment(self.photo, self.vocabulary, self.method, self.options, listener))


@dataclass(frozen=True)
class Answer:
    """A request and its result."""

    request: Request
    result: Segmentation


class Superseded(Cancelled):
    """A newer request of the same session has taken over; the page shows that one.

    Attributes:
        task: of the newer request.
    """

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task


CANCELLING = Progress("Cancelling", 0)
"""Tells that the person has cancelled and the work has yet to notice."""


class Flag(CancelFlag):
    """Says also why: `successor` is the task of the person's next request when that cancelled, not the person."""

    successor: str | None = None

    def cancel_for_person(self) -> None:
        """Cancel, and say so among the request's own news, so that it cannot arrive after what ends the request."""
        self._listener(CANCELLING)
        self.cancel()


class Running:
    """The running request of each browser session, so that it can be cancelled."""

    def __init__(self) -> None:
        self._flags: dict[str, Flag] = {}
        self._lock = threading.Lock()

    def start(self, session: str, listener: Listener, task: str) -> Flag:
        """Register a request of a task; an older one of the same session, of whatever task, is cancelled."""
        flag = Flag(listener)
        with self._lock:
            older, self._flags[session] = self._flags.get(session), flag
        if older:
            older.successor = task
            older.cancel()
        return flag

    def busy(self, session: str) -> bool:
        with self._lock:
            return session in self._flags

    def finish(self, session: str, flag: Flag) -> None:
        with self._lock:
            if self._flags.get(session) is flag:
                del self._flags[session]

    def cancel(self, session: str) -> None:
        with self._lock:
            flag = self._flags.get(session)
        if flag:
            flag.cancel_for_person()


@dataclass(frozen=True)
class _Finished:
    """What the work returned."""

    result: Any


def follow(running: Running, session: str, work: Callable[[Listener], Any], task: str = "segment") -> Iterator[Any]:
    """Do the work in a thread of its own, yielding its news (and CANCELLING) as they come and its result last.

    Closing the iterator cancels the work. Raises what the work raises, or Superseded instead of Cancelled, or of a
    result, that nobody waits for any more.
    """
    news: queue.Queue[Any] = queue.Queue()
    flag = running.start(session, news.put, task)

    def labour() -> None:
        try:
            news.put(_Finished(work(flag)))
        except BaseException as error:  # carried to the caller's thread, which raises it
            news.put(error)

    threading.Thread(target=labour, daemon=True).start()
    try:
        while True:
            item = news.get()
            ended = isinstance(item, _Finished | BaseException)
            if ended and flag.successor is not None:
                raise Superseded(flag.successor)
            if isinstance(item, BaseException):
                raise item
            yield item.result if ended else item
            if ended:
                return
    finally:
        flag.cancel()
        running.finish(session, flag)


def told(error: Exception) -> str:
    """One sentence for a person; what is not theirs to know goes to the log."""
    if isinstance(error, UserError):
        return str(error)
    _log.error("unexpected failure", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The server ran out of memory; try fewer words or a smaller photo."
    return "Something failed on the server; its log says what. Your photo and words are kept."


def toast(error: Exception) -> gr.Error:
    """The error as the page shows it: never markup, although gradio renders messages as HTML and ours quote people."""
    return gr.Error(html.escape(told(error)), duration=12, print_exception=False)
